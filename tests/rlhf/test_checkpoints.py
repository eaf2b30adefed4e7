"""Checkpoints appear whole or not at all; a run's folder belongs to one process and one configuration."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from labeling.records import UserError
from rlhf.checkpoints import latest_checkpoint, restore, save_checkpoint, trained_state
from rlhf.run_config import RunConfig, parse_run
from rlhf.run_log import provenance, run_folder

STATE = {"x": torch.arange(4.0), "history": [{"a": 1.5}], "none": None}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_newest_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "nothing") is None
    for iteration in (9, 10, 11):
        save_checkpoint(tmp_path / "run", iteration, {**STATE, "n": iteration}, keep=2)
    found = latest_checkpoint(tmp_path / "run")
    assert found is not None
    assert found[0] == found[1]["n"] == 11
    assert torch.equal(found[1]["x"], STATE["x"])  # type: ignore[arg-type]
    assert found[1]["history"] == STATE["history"]
    assert names(tmp_path / "run") == ["iteration-00010", "iteration-00011"]


@pytest.mark.parametrize("moment", ["os.fsync", "pathlib.Path.rename"])
def test_killed_while_saving_the_old_one_stays_usable(tmp_path: Path, moment: str) -> None:
    save_checkpoint(tmp_path, 1, STATE, keep=1)
    # A process that dies the moment it would make the file durable, or give the folder its name.
    program = (
        "import os, signal, torch, pathlib\n"
        "from rlhf.checkpoints import save_checkpoint\n"
        f"{moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"save_checkpoint(pathlib.Path({str(tmp_path)!r}), 2, {{'x': torch.ones(5)}}, 1)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == 1
    save_checkpoint(tmp_path, 2, STATE, keep=1)
    assert names(tmp_path) == ["iteration-00002"]  # what the killed process left is gone too


def test_ctrl_c_while_saving_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, STATE, keep=1)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 2, STATE, keep=1)
    assert names(tmp_path) == ["iteration-00001"]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that is full after `size` bytes of a file."""
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_line_and_the_old_one_stays(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, STATE, keep=1)
    with files_of_at_most(20_000), pytest.raises(UserError, match=r"cannot write the checkpoint .*--resume") as caught:
        save_checkpoint(tmp_path, 2, {"x": torch.randn(100_000)}, keep=1)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["iteration-00001"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 half a zip"])
def test_an_unreadable_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = save_checkpoint(tmp_path, 3, STATE, keep=1)
    (path / "state.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*iteration-00003.*: delete its folder"):
        latest_checkpoint(tmp_path)


class Hostile:
    """An object whose unpickling would run code."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("owned",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_checkpoint(tmp_path, 1, STATE, keep=1)
    torch.save({"x": Hostile()}, path / "state.pt")
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        latest_checkpoint(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_only_what_changes_is_saved_and_another_shape_is_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    state = trained_state(model)
    assert "0.weight" not in state
    assert {"0.bias", "1.running_mean"} <= state.keys()
    with torch.no_grad():
        saved = {name: t.clone() + 1 for name, t in state.items()}
        restore(model, saved)
    assert torch.equal(model[0].bias, saved["0.bias"])
    with pytest.raises(UserError, match=r"does not fit the model \(2.weight\)"):
        restore(model, {"2.weight": torch.zeros(1)})


# The folder of a run

CONFIG = parse_run({"name": "mine", "labels": {"oracle": {}}})


def hold(folder: Path, config: RunConfig) -> None:
    with run_folder(folder, config):
        pass


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from rlhf.run_config import parse_run\n"
        "from rlhf.run_log import run_folder\n"
        f"with run_folder(pathlib.Path({str(tmp_path)!r}), parse_run({{'name': 'mine'}})):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="'mine' is running already"):
            hold(tmp_path, CONFIG)
        other.kill()
    hold(tmp_path, CONFIG)  # a lock dies with its process


def test_a_run_with_a_checkpoint_keeps_its_configuration(tmp_path: Path) -> None:
    hold(tmp_path, CONFIG)
    save_checkpoint(tmp_path, 1, STATE, keep=1)
    hold(tmp_path, CONFIG)
    changed = replace(CONFIG, sampling=replace(CONFIG.sampling, temperature=0.5))
    with pytest.raises(UserError, match=r"started with sampling.temperature = 1.0, not 0.5: put it back"):
        hold(tmp_path, changed)
    with pytest.raises(UserError, match=r"recipe\.name = 'grpo', not 'ppo'"):
        hold(tmp_path, replace(CONFIG, recipe={"name": "ppo"}))
    with pytest.raises(UserError, match=r"labels\.oracle = "):
        hold(tmp_path, replace(CONFIG, labels=replace(CONFIG.labels, oracle=None)))
    hold(tmp_path, replace(CONFIG, iterations=99, keep_checkpoints=3, token_budget=1))  # these change no result
    hold(tmp_path, CONFIG)


def test_a_run_that_failed_before_its_first_checkpoint_may_be_told_otherwise(tmp_path: Path) -> None:
    hold(tmp_path, CONFIG)
    changed = replace(CONFIG, model=replace(CONFIG.model, name="tiny"))
    hold(tmp_path, changed)
    save_checkpoint(tmp_path, 1, STATE, keep=1)
    hold(tmp_path, changed)
    with pytest.raises(UserError, match=r"model\.name = 'tiny'"):
        hold(tmp_path, CONFIG)


def test_a_folder_that_cannot_be_made_is_named_and_errors_inside_are_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write in .*file/run"):
        hold(tmp_path / "file" / "run", CONFIG)
    with pytest.raises(ConnectionResetError), run_folder(tmp_path / "run", CONFIG):
        raise ConnectionResetError


def test_provenance_names_the_code_and_the_libraries(tmp_path: Path) -> None:
    here = Path(__file__).resolve().parents[2]
    found = provenance(here)
    assert found["versions"]["torch"].startswith("2.")
    expected = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    assert found["git"] == (expected.stdout.strip() or None)
    assert provenance(tmp_path)["git"] is None
