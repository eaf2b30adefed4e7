"""Layers that read the same input as one product: the numbers of each, fewer products, and none where it is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rlhf.backbones import load_backbone
from rlhf.linear_layers import Joined, layers_by, of_few_rows, plain, watched
from rlhf.policy import make_policy
from rlhf.sampling import sample

ROOM = 10**6


class Block(nn.Module):
    """Three layers that read the same input, one that reads what they give, and two of which one has a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (nn.Linear(8, n, bias=False) for n in (8, 4, 4))
        self.o, self.gate, self.up = nn.Linear(16, 8, bias=False), nn.Linear(8, 6), nn.Linear(8, 6, bias=False)
        self.apart = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.o(torch.cat([self.q(x), self.k(x), self.v(x.clone() if self.apart else x)], -1))
        return self.gate(x) * self.up(x)


def run(block: Block, joined: Joined, x: Tensor) -> tuple[Tensor, list[int]]:
    """What the block gives, and the widths of the products."""
    widths: list[int] = []

    def product(layer: nn.Linear, y: Tensor) -> Tensor:
        widths.append(layer.out_features)
        return of_few_rows(layer, y)

    with layers_by([m for m in block.modules() if isinstance(m, nn.Linear)], joined.by(product)), torch.no_grad():
        return block(x), widths


def watch(block: Block, x: Tensor) -> list[tuple[nn.Linear, int]]:
    calls: list[tuple[nn.Linear, int]] = []
    with layers_by([m for m in block.modules() if isinstance(m, nn.Linear)], watched(calls)), torch.no_grad():
        assert torch.equal(block(x), Block()(x))
    return calls


def test_it_gives_each_layers_numbers_by_one_product() -> None:
    block, x = Block(), torch.randn(2, 3, 8)
    calls = watch(block, x)
    assert [layer for layer, _ in calls] == [block.q, block.k, block.v, block.o, block.gate, block.up]
    assert [n - calls[0][1] for _, n in calls] == [0, 0, 0, 1, 2, 2]
    y = torch.randn(5, 1, 8)
    found, widths = run(block, Joined(calls, ROOM), y)
    assert torch.allclose(found, block(y), atol=1e-6)
    assert widths == [16, 8, 6, 6]  # a layer with a bias stays alone


def test_a_layer_that_reads_something_else_this_time_is_computed_by_itself() -> None:
    block, x = Block(), torch.randn(2, 8)
    joined = Joined(watch(block, x), ROOM)
    block.apart = True
    found, widths = run(block, joined, x)
    assert torch.allclose(found, block(x), atol=1e-6)
    assert widths == [16, 4, 8, 6, 6]


@pytest.mark.parametrize(("room", "first"), [(4 * 16 * 8, 16), (4 * 16 * 8 - 1, 8)])
def test_copies_take_no_more_room_than_there_is(room: int, first: int) -> None:
    block, x = Block(), torch.randn(2, 8)
    found, widths = run(block, Joined(watch(block, x), room), x)
    assert torch.allclose(found, block(x), atol=1e-6)
    assert widths[0] == first


@pytest.mark.parametrize("note", [0, 2])
def test_sampling_joins_and_follows_the_weights(note: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(load_backbone("tiny"), "full", 4)
    widths: list[int] = []

    def product(layer: nn.Linear, x: Tensor) -> Tensor:
        widths.append(layer.out_features)
        return plain(layer, x)

    def drawn() -> list[float]:
        stream = torch.Generator().manual_seed(0)
        rows = sample(policy.backbone, policy.model, [(60, 61), (70,)], 2, 5, 1.0, stream, note=note)
        return [x for row in rows for s in row for x in s.logp]

    monkeypatch.setattr("rlhf.sampling.of_few_rows", product)
    alone = {m.out_features for m in policy.model.modules() if isinstance(m, nn.Linear)}
    for _ in range(2):  # copies of weights that have changed since would be wrong
        joined = drawn()
        assert not set(widths) <= alone
        with monkeypatch.context() as patch:
            patch.setattr("rlhf.sampling.room", lambda: 0)
            assert joined == pytest.approx(drawn(), abs=1e-4)
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.mul_(1.1)
