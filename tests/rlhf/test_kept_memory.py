"""Freed memory stays within, so that the system fills no page twice, and goes back at the end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# A process of its own: how much of its memory is free depends on all that ran before.
WORK = """
import json, resource
from contextlib import nullcontext
from pathlib import Path
from rlhf.kept_memory import memory_kept

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
for name, kept in (("usual", nullcontext), ("kept", memory_kept)):
    with kept():
        work()
        before = filled()
        work()
        found[name] = filled() - before
        found[name + "_bytes"] = resident()
found["after_bytes"] = resident()
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's own options")
def test_memory_is_kept_within_and_given_back_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["kept"] < found["usual"] / 5
    assert found["kept_bytes"] - found["after_bytes"] > 90e6
