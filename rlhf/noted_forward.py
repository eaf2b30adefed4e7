"""Forwards kept for later: what the linear layers of a model gave, for as long as its weights stay as they are.

A policy learns from tokens that it has just run over while sampling, a critic from those whose values it has just
told; up to the first optimiser step their weights are the same. What costs in a forward is the products of the linear
layers, so these are noted, and that step's forward reads them: `y` comes from the notes, and backward is
`∂x = ∂y·W`, `∂W = ∂yᵀ·x`, as always. Attention, norms and gates are computed again.

Notes lie in a file without a name, 0.6 MB a token for the embedded model, and so not in memory but as far as the
system likes. Where there is no room for them, or a layer ran over other rows than the rest, nothing is noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlhf.linear_layers import Product, layers_by, plain, wide_layers
from rlhf.nameless_file import AT_ONCE, NamelessFile, borrow, bytes_of, room


class Notes:
    """What the linear layers of a decoder gave in several forwards of a model, pass by pass.

    Each pass runs over rows of its own and calls the same layers in the same order.
    """

    def __init__(self, model: nn.Module, decoder: nn.Module) -> None:
        self._weights = list(model.parameters())
        self._versions = self._now()
        self._dtype = self._weights[0].dtype
        self._layers, self._each = wide_layers(decoder), noted_bytes(decoder)
        self._calls: list[nn.Linear] = []
        self._starts: list[int] = []  # of each pass in the file, in numbers
        self._rows: list[int] = []
        self._end = 0
        self._waiting: list[Tensor] = []  # what is still to be written, as far as `_end`
        self._broken = False
        self._file: NamelessFile | None = None
        try:
            self._file = borrow()
        except OSError:
            self._broken = True

    def _now(self) -> list[int]:
        return [p._version for p in self._weights]

    @property
    def current(self) -> bool:
        """Whether the notes are whole and the model is still the one that they are of."""
        return not self._broken and self._now() == self._versions

    def room_for(self, tokens: int) -> bool:
        """Whether so many tokens more may be noted."""
        return self._end * self._dtype.itemsize + tokens * self._each <= room()

    def last_pass(self, lengths: Sequence[int]) -> list[Noted]:
        """The notes of the groups, of so many tokens, that the last forward ran over one after the other."""
        n, nothing = len(self._rows) - 1, torch.zeros(0)
        places = (Places(torch.full_like(row, n), row) for row in torch.arange(sum(lengths)).split(list(lengths)))
        return [Noted(self, place, nothing, nothing) for place in places]

    @contextmanager
    def taking(self, rows: Tensor | slice, product: Product = plain) -> Iterator[None]:
        """Note these rows of one forward (of its tokens, flattened), whose layers are computed by `product`."""
        calls: list[nn.Linear] = []
        counts: set[int] = set()

        def note(layer: nn.Linear, x: Tensor) -> Tensor:
            y = product(layer, x)
            kept = y.flatten(0, -2)[rows].contiguous()
            calls.append(layer)
            counts.add(len(kept))
            self._broken |= kept.dtype != self._dtype
            self._waiting.append(kept)
            self._end += kept.numel()
            if len(self._waiting) == AT_ONCE or kept.data_ptr() == y.data_ptr():  # nobody may change it before
                self._write()
            return y

        start = self._end
        with layers_by(self._layers, note):
            yield
        self._write()
        self._calls = self._calls or calls
        self._broken |= calls != self._calls or len(counts) != 1
        self._starts.append(start)
        self._rows += counts

    def _write(self) -> None:
        """Write what is waiting."""
        waiting, self._waiting = self._waiting, []
        if self._broken or self._file is None:
            return
        start = self._end - sum(x.numel() for x in waiting)
        try:
            self._file.write([bytes_of(x) for x in waiting], start * self._dtype.itemsize)
        except OSError:  # no room
            self._broken = True

    @contextmanager
    def giving(self, places: Places) -> Iterator[None]:
        """Run one forward over tokens whose places are given, flattened, without the products of its linear layers."""
        stretches, unseen, tokens = _stretches(places), (places.passed < 0).nonzero()[:, 0], len(places.passed)
        file, size, before = self._file, self._dtype.itemsize, 0
        assert file is not None
        calls = iter(self._calls)

        def give(layer: nn.Linear, x: Tensor) -> Tensor:
            nonlocal before
            assert layer is next(calls)
            y = torch.empty(tokens, layer.out_features, dtype=self._dtype)
            y[unseen] = 0.0  # not what the memory held before: 0 · NaN is NaN
            memory, row = bytes_of(y), layer.out_features * size
            for n, first, stretch in stretches:
                parts = [memory[start * row : end * row] for start, end in stretch]
                file.read(parts, (self._starts[n] + before * self._rows[n]) * size + first * row)
            before += layer.out_features
            return _Noted.apply(x, layer.weight, layer.bias, y.view(*x.shape[:-1], -1))

        with layers_by(self._layers, give):
            yield

    def close(self) -> None:
        """Leave the file to other notes; these are no more."""
        self._broken = True
        if self._file is not None:
            self._file.spare()
            self._file = None


def noted_bytes(decoder: nn.Module) -> int:
    """What the notes of one token take."""
    return sum(layer.out_features * layer.weight.element_size() for layer in wide_layers(decoder))


@dataclass(frozen=True)
class Places:
    """Where L tokens stand in notes: (L,) in which pass, −1 where in none, and in which of its rows."""

    passed: Tensor
    row: Tensor


@dataclass(frozen=True)
class Noted:
    """The notes of some tokens: of `[prompt | response]`, of a packed group or of several.

    log_z, entropy: (n,) of the distributions that their n response tokens were drawn from, at the sampling temperature;
    empty where nothing was drawn.
    """

    notes: Notes
    places: Places
    log_z: Tensor
    entropy: Tensor

    def behind(self, prompt: int) -> Noted:
        """The same without the first tokens."""
        return replace(self, places=Places(self.places.passed[prompt:], self.places.row[prompt:]))


def _stretches(places: Places) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """What to read at once: a pass, its first row, and which tokens this and the next rows are, from start to end.

    A token that no pass ran over is in none of them; nobody looks at it.
    """
    found: list[tuple[int, int, list[tuple[int, int]]]] = []
    order = sorted(zip(places.passed.tolist(), places.row.tolist(), range(len(places.row)), strict=True))
    previous = (-1, -1)
    for n, row, token in order:
        if n < 0:
            continue
        if previous != (n, row - 1):
            found.append((n, row, [(token, token + 1)]))
        elif found[-1][2][-1][1] == token:
            found[-1][2][-1] = (found[-1][2][-1][0], token + 1)
        else:
            found[-1][2].append((token, token + 1))
        previous = (n, row)
    return found


def joined(parts: Sequence[Noted | None]) -> Noted | None:
    """The notes of tokens side by side; None unless there are notes of all, in one file and of today's weights."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({id(part.notes) for part in known}) != 1 or not known[0].notes.current:
        return None
    places = Places(torch.cat([p.places.passed for p in known]), torch.cat([p.places.row for p in known]))
    return Noted(known[0].notes, places, torch.cat([p.log_z for p in known]), torch.cat([p.entropy for p in known]))


def of_group(responses: Sequence[Noted | None], prompt: int) -> Noted | None:
    """The notes of a prompt of so many tokens and of responses to it, as they are packed."""
    return joined([noted.behind(prompt) if noted and k else noted for k, noted in enumerate(responses)])


def forget(parts: Iterable[Noted | None]) -> None:
    """Leave the files of notes to the next ones."""
    for part in parts:
        if part is not None:
            part.notes.close()


class _Noted(torch.autograd.Function):
    """`y = x·Wᵀ + b` for a y that is known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        flat = of_y.flatten(0, -2)
        return (
            of_y @ weight if wants_x else None,
            flat.mT @ x.flatten(0, -2) if wants_weight else None,
            flat.sum(0) if wants_bias else None,
            None,
        )
