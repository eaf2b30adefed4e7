"""The command as people run it: real projects, one line for every mistake, and real processes for all that runs on."""

import argparse
import json
import os
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command_here import prefloop_here

import app

HERE = Path(app.__file__).resolve().parent
COMMAND = [sys.executable, str(HERE / "app.py")]
RUN = """
iterations = {iterations}
[model]
name = "tiny"
adaptation = "full"
[sampling]
prompts = 4
responses = 3
max_new_tokens = 8
[labels]
slates = 6
candidates = [2, 3]
heldout_share = 0.3
humans = false
[labels.oracle]
[reward_model]
adaptation = "full"
epochs = 1
[recipe]
name = "{recipe}"
[evaluation]
prompts = 3
"""
PROMPTS = [{"prompt": f"say {n}", "split": "heldout" if n % 3 == 0 else "train"} for n in range(12)]


def prefloop(*arguments: str | Path, cwd: Path, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False, **how
    )


def lines_of(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def content(folder: Path) -> dict[str, Any]:
    """Everything under a folder; a database by its records, since opening it touches the files."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.name == "prefloop.sqlite" and path.read_bytes()[:6] == b"SQLite":
            with closing(sqlite3.connect(path)) as db:
                found[str(path)] = list(db.iterdump())
        elif path.is_file() and not path.name.startswith("prefloop.sqlite-"):
            found[str(path)] = path.read_bytes()
    return found


def mistake(folder: Path, *arguments: str | Path, **how: Any) -> str:
    """Run a command that must fail: exit code 2, one line on stderr, nothing on disk changed. Returns the line.

    how: what a process of its own is to have.
    """
    before = content(folder)
    done = prefloop(*arguments, cwd=folder, **how) if how else prefloop_here(*arguments, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert content(folder) == before
    return only_line(done.stderr)


def only_line(text: str) -> str:
    [line] = text.splitlines()
    assert line.startswith("prefloop: ")
    return line


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    lines_of(folder / "prompts.jsonl", *PROMPTS)
    done = prefloop("import", "prompts.jsonl", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "12 prompts" in done.stdout
    return folder


@pytest.fixture
def project(imported: Path, tmp_path: Path) -> Path:
    """A folder of its own that holds a project of twelve prompts."""
    return shutil.copytree(imported, tmp_path / "project")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def run_file(folder: Path, iterations: int = 2, recipe: str = "grpo", more: str = "") -> Path:
    path = folder / "mine.toml"
    path.write_text(RUN.format(iterations=iterations, recipe=recipe) + more)
    return path


# Help


def commands() -> dict[str, argparse.ArgumentParser]:
    [choices] = [a.choices for a in app._parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(choices)


def loaded_by(*arguments: str, cwd: Path) -> set[str]:
    """The packages that a command loads."""
    flags = [sys.executable, "-X", "importtime", *COMMAND[1:], *arguments]
    done = subprocess.run(flags, capture_output=True, text=True, cwd=cwd, timeout=60, check=False)
    assert done.returncode == 0
    return {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = loaded_by("--help", cwd=tmp_path)
    assert "labeling" in loaded  # the list is what it should be
    assert not loaded & {"torch", "numpy", "gradio", "openai", "transformers", "pandas", "fastapi", "pydantic", "rich"}


def test_the_store_loads_no_pandas(project: Path) -> None:
    """sqlite-utils would, for a second of each command."""
    loaded = loaded_by("export", "prompts.jsonl", "--what", "prompts", cwd=project)
    assert "sqlite_utils" in loaded
    assert not loaded & {"torch", "gradio", "openai", "transformers", "pandas", "fastapi"}


@pytest.mark.parametrize("name", commands())
def test_each_command_has_help_and_a_place_in_the_readme(name: str, tmp_path: Path) -> None:
    done = prefloop(name, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: prefloop {name}" in done.stdout
    assert "--project" in done.stdout
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"(prefloop|make) {name}\b", readme), f"README.md does not mention `prefloop {name}`"


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "80.0"])
def test_an_impossible_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        app.main(["serve", f"--port={port}"])
    assert left.value.code == 2
    assert "is not a port" in capsys.readouterr().err.splitlines()[-1]


# Mistakes


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "b"', "bad.jsonl:2: not valid JSON at column"),
        ({"prompt": "  "}, "bad.jsonl:2: the prompt is empty"),
        ({"prompt": "b", "splt": "train"}, "bad.jsonl:2: a line of prompts has no key 'splt'"),
    ],
)
def test_a_bad_line_is_named_and_nothing_of_its_file_is_imported(
    project: Path, tmp_path: Path, line: Any, expected: str
) -> None:
    lines_of(project / "bad.jsonl", {"prompt": "a new one"}, line)
    assert expected in mistake(project, "import", "bad.jsonl")
    # A project that does not exist yet is not made for it.
    mistake(tmp_path, "import", project / "bad.jsonl", "--project", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["export x.jsonl", "serve", "report x.html", "judge --judge=criteria"])
def test_a_folder_without_a_project(tmp_path: Path, command: str) -> None:
    assert "holds no Prefloop project: make one with `prefloop import`" in mistake(tmp_path, *command.split())


def test_a_database_of_a_newer_version_or_of_something_else(project: Path) -> None:
    with closing(sqlite3.connect(project / "prefloop.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    assert "written by a newer Prefloop (its version 99" in mistake(project, "export", "x.jsonl")
    for path in project.glob("prefloop.sqlite*"):
        path.unlink()
    (project / "prefloop.sqlite").write_bytes(b"not a database, whatever the name says" * 99)
    assert "is not a Prefloop database" in mistake(project, "export", "x.jsonl")


def test_unknown_names(project: Path) -> None:
    assert "no shipped file 'nobody' in judges" in mistake(project, "judge", "--judge", "nobody")
    assert "no shipped file 'nothing' in runs" in mistake(project, "loop", "nothing")
    assert "holds no run yet" in mistake(project, "report", "x.html")
    assert "gone.jsonl: cannot be read (No such file" in mistake(project, "import", "gone.jsonl")


def test_bad_run_files(project: Path) -> None:
    path = run_file(project, more="[sampler]\nprompts = 3\n")
    assert "mine.toml: unknown key 'sampler'; known here: name, seed" in mistake(project, "loop", path)
    path = run_file(project, recipe="reinforce")
    assert "mine.toml: [recipe] there is no recipe 'reinforce'" in mistake(project, "loop", path)


def test_an_endpoint_that_is_down(project: Path) -> None:
    url = f"http://127.0.0.1:{closed_port()}/v1"
    lines = ['kind = "endpoint"', 'name = "down"', 'rubric = "helpful"', f'base_url = "{url}"', 'model = "m"']
    lines_of(project / "down.toml", *lines, "max_retries = 0")
    lines_of(project / "pair.jsonl", {"prompt": "which?", "chosen": "a", "rejected": "b"})
    assert prefloop_here("import", "pair.jsonl", cwd=project).returncode == 0
    done = prefloop("judge", "--judge", "down.toml", cwd=project)
    assert done.returncode == 2
    message = only_line(done.stderr)
    assert rows(project, "SELECT outcome, cost FROM judge_call") == [("endpoint_failure", 0.0)]  # on the books, unpaid
    assert rows(project, "SELECT count(*) FROM label WHERE annotator LIKE 'judge:%'") == [(0,)]
    assert url in message
    assert "down.toml" in message


def test_a_port_that_is_taken(project: Path, taken_port: int) -> None:
    assert f"port {taken_port} on 127.0.0.1 is taken" in mistake(project, "serve", "--port", str(taken_port))
    done = prefloop("demo", "--project", project, "--port", str(taken_port), cwd=project)
    assert done.returncode == 2
    assert f"port {taken_port} on 127.0.0.1 is taken" in only_line(done.stderr)
    assert not (project / "runs").exists()  # training is not started beside a page that nobody can see


def test_a_disk_that_is_full(project: Path) -> None:
    lines_of(project / "long.jsonl", *({"prompt": f"{n} " + "word " * 200} for n in range(400)))
    assert prefloop_here("import", "long.jsonl", cwd=project).returncode == 0
    (project / "out.jsonl").write_text("the old file\n")

    def limit() -> None:  # enough for the database's own files, not for the 400 kB of the export
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    message = mistake(project, "export", "out.jsonl", "--what", "prompts", preexec_fn=limit)
    assert "out.jsonl: cannot be written (File too large): free some space" in message
    message = mistake(project, "export", "no/such/folder.jsonl")
    assert "cannot be written: make the folder " in message


def failed_run(project: Path, *arguments: str | Path) -> str:
    """A run that fails on what it was given: its events say so, and it leaves no checkpoint."""
    done = prefloop_here("loop", *arguments, cwd=project)
    assert done.returncode == 2, done.stderr
    message = only_line(done.stderr)
    assert not list(project.glob("runs/*/iteration-*"))
    with closing(sqlite3.connect(project / "prefloop.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM slate").fetchone() == (0,)
        [end] = db.execute("SELECT data FROM run_event WHERE kind = 'end'").fetchall()
    told = json.loads(end[0])
    assert told["reason"] == "failed"
    assert message == f"prefloop: {told['message']}"
    return message


def test_a_prompt_longer_than_the_context(project: Path) -> None:
    lines_of(project / "long.jsonl", {"prompt": "Tell me. " + "x" * 600, "split": "train"})
    assert prefloop_here("import", "long.jsonl", cwd=project).returncode == 0
    message = failed_run(project, run_file(project))
    assert "('Tell me. xxxxx" in message
    assert re.search(
        r"has 61\d tokens; with sampling.max_new_tokens = 8 that is over the 512 of tiny: shorten", message
    )


def test_a_model_that_does_not_exist_and_the_same_run_with_one_that_does(project: Path) -> None:
    path = run_file(project, iterations=1)
    message = failed_run(project, path, "--set", "model.name=./nowhere")
    assert "the model './nowhere' cannot be loaded" in message
    assert "give 'smollm2-135m-instruct', a hub id or the directory" in message
    done = prefloop("loop", path, "--resume", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert (project / "runs/mine/iteration-00001/state.pt").exists()


# The loop


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def rows(project: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(project / "prefloop.sqlite")) as db:
        return db.execute(sql).fetchall()


def test_the_loop_is_stopped_resumed_and_its_labels_leave_as_pairs(project: Path) -> None:
    path = run_file(project, iterations=1000, recipe="ppo")
    with subprocess.Popen(
        [*COMMAND, "loop", str(path)], cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_for(lambda: any(project.glob("runs/mine/iteration-*")), process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    assert "mine: stopped (go on with --resume)" in out
    [checkpoint] = project.glob("runs/mine/*iteration-*")  # one that is whole, and nothing beside it
    done_before = int(checkpoint.name.removeprefix("iteration-"))

    assert "the run 'mine' exists: go on with --resume" in mistake(project, "loop", path)
    last = done_before + 2
    done = prefloop("loop", path, "--resume", "--set", f"iterations={last}", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"mine: finished ({last} iterations)" in done.stdout
    ended = rows(project, "SELECT iteration FROM run_event WHERE run = 'mine' AND kind = 'iteration' ORDER BY seq")
    assert [n for (n,) in ended] == list(range(1, last + 1))  # each once: none lost, none done twice
    assert [p.name for p in project.glob("runs/mine/iteration-*")] == [f"iteration-{last:05d}"]

    assert rows(project, "SELECT DISTINCT annotator, outcome FROM label") == [("oracle:mine", "ranked")]
    [(labels,)] = rows(project, "SELECT count(*) FROM label")
    [(slates,)] = rows(project, "SELECT count(*) FROM slate WHERE run = 'mine'")
    assert labels == slates > 0
    done = prefloop("export", "pairs.jsonl", cwd=project)
    pairs = [json.loads(line) for line in (project / "pairs.jsonl").read_text().splitlines()]
    [(decided,)] = rows(project, "SELECT sum(k * (k - 1) / 2) FROM slate")  # Gumbel noise leaves no ties
    assert done.stdout == f"{decided} lines written\n"
    assert len(pairs) == decided
    assert {tuple(sorted(pair)) for pair in pairs} == {("chosen", "prompt", "rejected")}

    done = prefloop("report", "run.html", cwd=project)
    assert done.stdout == "wrote run.html\n"
    html = (project / "run.html").read_text()
    assert "mine" in html
    assert f"{last}" in html
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", html)  # it needs nothing from elsewhere

    done = prefloop("judge", "--judge", "criteria", "--limit", "3", cwd=project)
    assert done.returncode == 0
    judged = rows(project, "SELECT count(*) FROM label WHERE annotator LIKE 'judge:criteria:%'")
    assert judged == [(3,)]


def test_what_judging_would_take_is_told_without_asking(project: Path) -> None:
    lines = [
        'kind = "endpoint"',
        'name = "dear"',
        'rubric = "helpful"',
        f'base_url = "http://127.0.0.1:{closed_port()}/v1"',
    ]
    lines_of(project / "dear.toml", *lines, 'model = "m"', "[price]", "prompt = 1000", "completion = 1000")
    lines_of(project / "pair.jsonl", {"prompt": "which?", "chosen": "a", "rejected": "b"})
    assert prefloop_here("import", "pair.jsonl", cwd=project).returncode == 0
    done = prefloop_here("judge", "--judge", "dear.toml", "--dry-run", "--calls", "9", cwd=project)
    assert done.returncode == 0
    told = r"1 slates, 18 calls \(16 about canaries\), about [\d,]+ \+ 1,152 tokens, about \$\d+\.\d+, about \d s"
    assert re.search(told, done.stdout)
    assert "used so far: 0 of 9 calls" in done.stdout
    assert "runs here and costs nothing: leave out --money" in mistake(
        project, "judge", "--judge", "criteria", "--money", "1"
    )


def test_ctrl_c_ends_the_demo_with_all_its_processes(project: Path) -> None:
    port, path = closed_port(), run_file(project, iterations=1000)
    demo = ["demo", "--project", str(project), "--port", str(port), "--run", str(path)]
    with subprocess.Popen(
        [*COMMAND, *demo],
        cwd=project,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        wait_for(lambda: any(project.glob("runs/mine/iteration-*")), process)
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends Ctrl-C to all of them
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    assert f"Prefloop is at http://127.0.0.1:{port}" in out
    assert "mine: stopped (go on with --resume)" in out
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        os.killpg(process.pid, 0)
    socket.create_server(("127.0.0.1", port)).close()  # and the port is free
