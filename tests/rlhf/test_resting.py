"""Weights laid down in a file: the same numbers, no memory while they rest, and trained as before once picked up."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from loop_world import World, run_tiny, tiny_config
from torch import nn

from rlhf import nameless_file, resting
from rlhf.kept_memory import give_back, keep_memory
from rlhf.resting import awake, lay_down, pick_up, rest

PAGES = 2**24  # numbers: 64 MB


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOOP_CACHE", str(tmp_path))


@pytest.mark.parametrize("torn", [False, True], ids=["", "from between what is in use"])
def test_the_numbers_stay_and_the_memory_goes(torn: bool) -> None:
    keep_memory()
    heap = [torch.ones(size) for size in (2 * PAGES, 2**10)] if torn else []
    heap = heap[1:]  # what is free below the second goes to whoever asks next, and never back by itself
    module = nn.Linear(2**12, PAGES // 2**12)
    x = torch.randn(2, 2**12)
    expected = module(x)
    before = resident()
    lay_down(module)
    at_rest = resident()
    assert before - at_rest > 0.9 * 4 * PAGES
    assert torch.equal(module(x), expected)
    assert resident() - at_rest > 0.9 * 4 * PAGES  # it is back while it is used
    rest(module)
    assert resident() - at_rest < 0.1 * 4 * PAGES
    assert torch.equal(module(x), expected)


def of_files() -> int:
    """Bytes of this process in memory that are pages of files."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssFile:")[1].split()[0]) * 1024


def test_weights_that_are_used_lie_in_memory_that_the_process_keeps_and_not_in_pages_of_their_file() -> None:
    module = nn.Sequential(nn.Linear(2**12, PAGES // 2**12), nn.Linear(PAGES // 2**12, 1))
    x = torch.randn(2, 2**12)
    expected = module(x)
    lay_down(module)
    places = [p.data_ptr() for p in module.parameters()]
    module(x[:0])  # loads what computing needs
    rest(module)
    at_rest = of_files()
    with awake(module):
        assert torch.equal(module(x), expected)
        assert of_files() - at_rest < 0.1 * 4 * PAGES
    assert [p.data_ptr() for p in module.parameters()] == places
    assert torch.equal(module(x), expected)
    never_laid_down = nn.Linear(2, 2)
    with awake(never_laid_down):
        never_laid_down.weight.data.fill_(1.0)
    assert (never_laid_down.weight == 1.0).all()
    give_back()


def test_weights_that_cannot_be_read_are_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    expected = module(torch.ones(4))
    lay_down(module)

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):  # noqa: PT012
        patch.setattr(nameless_file.NamelessFile, "read", broken)
        with awake(module):
            pass
    assert torch.equal(module(torch.ones(4)), expected)


def test_what_was_written_to_resting_weights_is_kept() -> None:
    module = nn.Linear(64, 64)
    lay_down(module)
    with torch.no_grad():
        module.weight.fill_(3.0)
    rest(module)
    assert (module.weight == 3.0).all()


def test_mixed_kinds_scalars_transposed_and_shared_weights_come_through() -> None:
    module = nn.Module()
    module.scalar = nn.Parameter(torch.tensor(2.5))
    module.short_ = nn.Parameter(torch.arange(7).to(torch.bfloat16))
    module.turned = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    module.again = module.short_
    lay_down(module)
    assert module.scalar.item() == 2.5
    assert module.short_.tolist() == list(range(7))
    assert torch.equal(module.turned, torch.arange(6.0).reshape(2, 3).T)
    assert module.again is module.short_


def test_picked_up_weights_train_like_any_and_leave_the_file_alone() -> None:
    plain = nn.Linear(8, 1)
    module = copy.deepcopy(plain)
    lay_down(module)
    twin = copy.deepcopy(module)  # as a critic begins: in memory of its own
    pick_up(module)
    for model in (plain, module):
        model(torch.ones(1, 8)).sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    rest(module)  # nothing rests any more
    assert torch.equal(module.weight, plain.weight)
    assert not torch.equal(twin.weight, module.weight)


def test_a_disk_without_room_leaves_the_weights_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameless_file, "cache_folder", lambda: Path("/dev/full"))
    module = nn.Linear(2, 2)
    weight = module.weight.data
    lay_down(module)
    assert module.weight.data.data_ptr() == weight.data_ptr()


def test_a_run_lays_down_what_does_not_learn_and_lets_go_of_it_for_the_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("grpo", iterations=2)  # policy and reward model learn whole
    let_go: list[nn.Module] = []

    def used(module: nn.Module) -> AbstractContextManager[None]:
        let_go.append(module)
        return awake(module)

    monkeypatch.setattr("rlhf.policy.awake", used)
    monkeypatch.setattr("rlhf.reward_model.awake", used)
    subject = run_tiny(config, tmp_path / "run", World(0))
    assert subject.policy.reference_model in resting._places
    assert subject.reward_model.decoder in resting._places  # also after its fits
    assert subject.policy.model not in resting._places
    assert set(let_go) == {subject.policy.reference_model, subject.reward_model.decoder}
