"""An agent's run by the command that people type: it learns from labels in the store, stops, goes on, and is told."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from command_here import prefloop_here

COMMAND = (sys.executable, str(Path(__file__).resolve().parent.parent / "app.py"))
RUN = """
question = "Which pendulum stands more upright?"
guide = "Up is good."
iterations = {iterations}
[environment]
id = "{id}"
max_steps = 60
[segments]
length = 10
[labels]
slates = 6
first_slates = 20
heldout_share = 0.25
humans = {humans}
[labels.oracle]
flip_rate = 0
[reward_model]
updates = 5
first_updates = 10
[agent]
steps = 256
parallel = 2
options = {{ n_steps = 128, batch_size = 64, n_epochs = 1 }}
[evaluation]
episodes = 2
"""


def prefloop(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120)


def run_file(folder: Path, iterations: int = 3, id: str = "Pendulum-v1", humans: str = "false") -> Path:
    path = folder / "agent.toml"
    path.write_text(RUN.format(iterations=iterations, id=id, humans=humans), encoding="utf-8")
    return path


def test_a_run_is_stopped_goes_on_and_is_told(tmp_path: Path) -> None:
    path = run_file(tmp_path, iterations=500)
    with subprocess.Popen([*COMMAND, "loop", str(path)], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 100
        while not any(tmp_path.glob("runs/agent/iteration-*")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    done = max(int(p.name[-5:]) for p in tmp_path.glob("runs/agent/iteration-*"))
    ended = prefloop("loop", path, "--resume", "--set", f"iterations={done + 1}", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    with closing(sqlite3.connect(tmp_path / "prefloop.sqlite")) as db:
        told = db.execute("SELECT iteration FROM run_event WHERE kind = 'iteration' ORDER BY seq").fetchall()
        about = json.loads(db.execute("SELECT data FROM run_event WHERE kind = 'run'").fetchone()[0])
        fit = json.loads(db.execute("SELECT data FROM run_event WHERE kind = 'fit'").fetchone()[0])
        clips = db.execute(
            "SELECT count(DISTINCT clip) FROM candidate WHERE clip IN (SELECT id FROM segment)"
        ).fetchone()
        fitted = db.execute("SELECT count(*) FROM fit_label WHERE iteration = 1").fetchone()
        splits = db.execute(
            "SELECT DISTINCT split FROM fit_label JOIN label USING (client_key) JOIN slate ON slate.id = slate_id "
            "JOIN prompt ON prompt.id = prompt_id"
        ).fetchall()
    assert [n for (n,) in told] == list(range(1, done + 2))
    assert (about["environment"], about["guide"], about["recipe"]) == ("Pendulum-v1", "Up is good.", "ppo")
    assert [t["flip_rate"] for t in fit["trust"]] == [0.1]  # label_noise, as the annotator declares none
    assert clips[0] >= 40  # 20 slates of two in the first iteration alone
    assert fitted[0] == 15  # a quarter of them is held out
    assert splits == [("train",)]  # what is held out never teaches
    page = tmp_path / "run.html"
    assert prefloop("report", page, cwd=tmp_path).returncode == 0
    assert "Which pendulum stands more upright?" in page.read_text(encoding="utf-8")
    lines = tmp_path / "labels.jsonl"
    assert prefloop("export", lines, "--what", "labels", cwd=tmp_path).returncode == 0
    first = json.loads(lines.read_text(encoding="utf-8").splitlines()[0])
    assert all(c["clip"].startswith("clip_") for c in first["candidates"])
    assert "return" not in first["candidates"][0]["text"]  # what a judge reads says nothing of the true reward


@pytest.mark.parametrize(
    ("id", "options", "culprit"),
    [
        ("Pendulum-v9", (), "environment.id = 'Pendulum-v9'"),
        ("CarRacing-v3", (), 'set environment.encoder = "pixels"'),
        ("FrozenLake-v1", (), 'set environment.encoder = "flatten"'),
        ("Pendulum-v1", ("--set", "agent.options.speed=3"), "agent.options has no key 'speed'"),
        ("Pendulum-v1", ("--set", "agent.steps=300"), "agent.steps = 300 is no multiple"),
        ("CartPole-v1", ("--set", "agent.algorithm=sac", "--set", "agent.options={}"), 'use "ppo"'),
        ("Pendulum-v1", ("--set", "segment.length=3"), "unknown key 'segment'"),
    ],
)
def test_what_cannot_work_is_said_in_one_line_before_any_step(
    id: str, options: tuple[str, ...], culprit: str, tmp_path: Path
) -> None:
    found = prefloop_here("loop", run_file(tmp_path, id=id), *options, cwd=tmp_path)
    assert found.returncode == 2
    (line,) = found.stderr.strip().splitlines()
    assert culprit in line
    assert not list(tmp_path.glob("runs/agent/iteration-*"))


@pytest.mark.parametrize("looks", ["people", "a judge"])
def test_who_could_see_nothing_is_not_asked(looks: str, tmp_path: Path) -> None:
    """Without a way to draw, a run for people or a judge that sees ends before its first step and call."""
    judge = ("--set", "labels.judges=['clip-vision']") if looks == "a judge" else ()
    path = run_file(tmp_path, iterations=1, id="Reacher-v5", humans=str(looks == "people").lower())
    found = subprocess.run(
        ["env", "MUJOCO_GL=nonsense", *COMMAND, "loop", str(path), *judge],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 2
    assert "MUJOCO_GL" in found.stderr.strip().splitlines()[-1]
    assert not list(tmp_path.glob("runs/agent/iteration-*"))


def test_a_judge_that_counts_words_is_refused_before_any_step(tmp_path: Path) -> None:
    found = prefloop_here("loop", run_file(tmp_path), "--set", "labels.judges=['criteria']", cwd=tmp_path)
    assert found.returncode == 2
    (line,) = found.stderr.strip().splitlines()
    assert "labels.judges names 'criteria', which counts words and cannot compare clips" in line
    with closing(sqlite3.connect(tmp_path / "prefloop.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM segment").fetchone() == (0,)
