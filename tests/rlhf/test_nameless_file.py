"""A file without a name: whole lists of memory go in and come back, however little the system moves at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlhf import nameless_file
from rlhf.nameless_file import AT_ONCE, NamelessFile, borrow, bytes_of, drop_spare


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOOP_CACHE", str(tmp_path))
    drop_spare()


def some(sizes: list[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (n,), dtype=torch.uint8, generator=generator) for n in sizes]


def little(call: Callable[..., int]) -> Callable[..., int]:
    """The call, but for seven bytes at a time, and no more than a system takes."""

    def moving(file: int, parts: list[memoryview], start: int) -> int:
        assert len(parts) <= AT_ONCE
        cut, room = [], 7
        for part in parts:
            cut.append(part[:room])
            room -= len(cut[-1])
        return call(file, [part for part in cut if len(part)], start)

    return moving


@pytest.mark.parametrize("at_a_time", ["all", "little"])
@pytest.mark.parametrize("sizes", [[5], [3, 0, 4, 9, 7, 7, 1], [2] * (AT_ONCE + 3), []], ids=str)
def test_what_went_in_comes_back(sizes: list[int], at_a_time: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if at_a_time == "little":
        monkeypatch.setattr(os, "pwritev", little(os.pwritev))
        monkeypatch.setattr(os, "preadv", little(os.preadv))
    file, given = NamelessFile(), some(sizes)
    file.write([bytes_of(x) for x in given], 11)
    found = [torch.zeros_like(x) for x in given]
    file.read([bytes_of(x) for x in found], 11)
    assert all(torch.equal(a, b) for a, b in zip(given, found, strict=True))
    if sizes:
        assert bytes(file.pages())[:11] == bytes(11)


def test_a_file_that_ends_too_early_says_so_and_does_not_wait_forever() -> None:
    file = NamelessFile()
    file.write([memoryview(b"abc")], 0)
    with pytest.raises(OSError, match="ends too early"):
        file.read([memoryview(bytearray(4))], 0)


def test_room_that_was_made_holds_zeros() -> None:
    file = NamelessFile()
    file.make_room(100)
    assert bytes(file.pages()) == bytes(100)


def test_a_spare_file_is_used_again_until_it_is_dropped(tmp_path: Path) -> None:
    first = borrow()
    first.spare()
    assert borrow() is first
    assert borrow() is not first
    first.spare()
    drop_spare()
    assert not nameless_file._spare
    assert list(tmp_path.iterdir()) == []  # it has no name


def test_numbers_of_any_kind_are_bytes() -> None:
    x = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    bytes_of(torch.zeros(()))
    memory = bytes_of(x)
    assert len(memory) == 4
    memory[:2] = memory[2:]
    assert x.tolist() == [-2.0, -2.0]
