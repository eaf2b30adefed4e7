"""Freed memory stays, so that the system fills no page twice, and goes back when it is told to."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import loop_command

# A process of its own: how much of its memory is free depends on all that ran before.
WORK = """
import json, resource
from pathlib import Path
from rlhf.kept_memory import give_back, keep_memory

def filled():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def work():
    import torch
    for _ in range(10):
        parts = [torch.ones(2**24) for _ in range(2)]  # 128 MB
        del parts

work()
found = {}
for name, begin in (("usual", lambda: None), ("kept", keep_memory)):
    begin()
    work()
    before = filled()
    work()
    found[name] = filled() - before
    found[name + "_bytes"] = resident()
give_back()
found["after_bytes"] = resident()
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's own options")
def test_memory_is_kept_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["kept"] < found["usual"] / 5
    assert found["kept_bytes"] - found["after_bytes"] > 90e6


@pytest.mark.parametrize("wanted", [0, 1])
def test_a_loop_gives_back_what_is_free_only_where_it_waits_for_people(
    wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls, given = iter([[], [], [SimpleNamespace(slate_id="s")]]), []
    monkeypatch.setattr("rlhf.kept_memory.give_back", lambda: given.append("back"))
    monkeypatch.setattr(loop_command, "POLL_SECONDS", 0.0)
    labels = SimpleNamespace(wait_for_humans=wanted, first_wait_for_humans=None)
    config: Any = SimpleNamespace(name="run", labels=labels)
    store: Any = SimpleNamespace(human_labels=lambda run: next(polls))
    slates: Any = [SimpleNamespace(id="s")]
    loop_command._wait_for_people(config, store, slates, 1)
    assert given == ["back"] * wanted
