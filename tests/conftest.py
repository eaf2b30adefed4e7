"""What holds for all tests: one thread for torch, no other computer, and how several workers share the work."""

from __future__ import annotations

import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch loads, which no test has done yet
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may depend on another computer

LEARNING = ("test_agent_learning.py", "test_learning.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers (`make test`), the runs of learning come first and go to whoever is free.

    All other tests of a file stay together, for they share a server or a browser.
    """
    items.sort(key=lambda item: item.path.name not in LEARNING)
    for item in items:
        if item.path.name not in LEARNING:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
