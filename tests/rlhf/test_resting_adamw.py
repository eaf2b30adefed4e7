"""AdamW whose moments rest in a file: the library's steps to the bit, and no memory for the moments in between."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from test_resting import resident
from torch import nn

from rlhf import nameless_file, resting_adamw
from rlhf.kept_memory import give_back
from rlhf.resting_adamw import RestingAdamW

LAYERS, WIDTH = 6, 2**11  # 6 × 16 MB of weights


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOOP_CACHE", str(tmp_path))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    """The same inputs at the same step; one layer has no gradient at every second, and the learning rate falls."""
    for n in range(first, first + steps):
        optimizer.param_groups[0]["lr"] = 0.01 / (n + 1)
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(n))
        model(x).square().sum().backward()
        if n % 2:
            model[1].weight.grad = None
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("window", [8, 24, 2**19], ids=["a row", "a part that leaves a rest", "all at once"])
def test_its_steps_are_those_of_the_library(window: int, weight_decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting_adamw, "FEW", 0)
    monkeypatch.setattr(resting_adamw, "WINDOW", window)
    plain, rested = small(), small()
    train(plain, torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=weight_decay, fused=True), 5)
    optimizer = RestingAdamW(rested.parameters(), 0.01, weight_decay)
    train(rested, optimizer, 5)
    assert optimizer._laid
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), rested.parameters(), strict=True))
    assert all(p.grad is None for p in rested.parameters())


def test_a_checkpoint_goes_on_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting_adamw, "FEW", 0)
    plain, rested = small(), small()
    train(plain, torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.0, fused=True), 6)
    before = RestingAdamW(rested.parameters(), 0.01)
    train(rested, before, 3)
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    train(copy.deepcopy(rested), before, 1)  # what the old one does to its moments is no longer ours
    file.seek(0)
    after = RestingAdamW(rested.parameters(), 0.01)
    train(copy.deepcopy(rested), after, 1)
    after.load_state_dict(torch.load(file, weights_only=True))
    train(rested, after, 3, 3)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), rested.parameters(), strict=True))


def test_moments_take_no_memory_between_steps() -> None:
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    weights = sum(p.nbytes for p in model.parameters())
    optimizer = RestingAdamW(model.parameters(), 0.01)
    give_back()
    resident_before = resident()

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        give_back()  # gradients
        assert resident() - resident_before < 0.3 * weights

    step()
    step()
    saved = sum(state["exp_avg"].sum().item() for state in optimizer.state_dict()["state"].values())
    assert saved == pytest.approx(sum(p.numel() for p in model.parameters()) * 0.19, rel=1e-3)
    assert resident() - resident_before > 0.9 * weights  # read, so there
    optimizer.rest()
    assert resident() - resident_before < 0.3 * weights
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step()


def test_where_the_disk_has_no_room_moments_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameless_file, "cache_folder", lambda: Path("/dev/full"))
    monkeypatch.setattr(resting_adamw, "FEW", 0)
    plain, rested = small(), small()
    train(plain, torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.0, fused=True), 3)
    train(rested, RestingAdamW(rested.parameters(), 0.01), 3)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), rested.parameters(), strict=True))


@pytest.mark.parametrize("reason", ["few", "no room"])
def test_what_need_not_or_cannot_rest_is_in_no_file(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "few":
        monkeypatch.setattr(resting_adamw, "FEW", 288)  # four layers of 72
    else:
        monkeypatch.setattr(resting_adamw, "FEW", 0)
        monkeypatch.setattr(resting_adamw, "room", lambda: 100)
    model = small()
    optimizer = RestingAdamW(model.parameters(), 0.01)
    train(model, optimizer, 2)
    assert not optimizer._laid
    model(torch.ones(8)).sum().backward()
    optimizer.step()
    assert all(p.grad is None for p in model.parameters())
