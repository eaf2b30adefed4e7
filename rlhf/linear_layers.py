"""The linear layers of a decoder, where nearly all of its arithmetic is, and other ways to compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

NARROW = 64  # a layer of fewer inputs or outputs is cheap

Product = Callable[[nn.Linear, Tensor], Tensor]


def wide_layers(decoder: nn.Module) -> list[nn.Linear]:
    """The linear layers whose products cost something."""
    found = [layer for layer in decoder.modules() if type(layer) is nn.Linear]
    return [layer for layer in found if min(layer.in_features, layer.out_features) >= NARROW]


@contextmanager
def layers_by(layers: Sequence[nn.Linear], product: Product) -> Iterator[None]:
    """Within it, these layers compute `x·Wᵀ + b` by `product(layer, x)`."""
    for layer in layers:
        layer.forward = partial(product, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def plain(layer: nn.Linear, x: Tensor) -> Tensor:
    """The library's own product."""
    return linear(x, layer.weight, layer.bias)


def of_few_rows(layer: nn.Linear, x: Tensor) -> Tensor:
    """`(W·xᵀ)ᵀ + b`: for some tens of rows on a CPU a fifth faster than `x·Wᵀ`. Without gradients."""
    y = torch.mm(layer.weight, x.flatten(0, -2).mT).mT
    return (y if layer.bias is None else y + layer.bias).view(*x.shape[:-1], -1)


class Joined:
    """Layers that read the same input as one product: with few rows, to begin a product costs as much as to do it.

    Their weights are copied below one another, and so good as long as those stay as they are.
    """

    def __init__(self, calls: Sequence[tuple[nn.Linear, int]], room: int) -> None:
        """calls: which layer read which input, as `watched` noted. room: bytes that the copies may take."""
        groups = [[layer for layer, _ in group] for _, group in groupby(calls, lambda call: call[1])]
        groups = [group for group in groups if len(group) > 1 and all(layer.bias is None for layer in group)]
        size = sum(layer.weight.nbytes for group in groups for layer in group)
        self._wide = {group[0]: (_below_one_another(group), group) for group in groups if size <= room}

    def by(self, product: Product) -> Product:
        """The same for each layer, where `product` computes the joined ones and those that are alone."""
        ready: dict[nn.Linear, tuple[Tensor, Tensor]] = {}

        def joined(layer: nn.Linear, x: Tensor) -> Tensor:
            read, y = ready.pop(layer, (None, x))
            if read is x:
                return y
            if layer not in self._wide:
                return product(layer, x)
            wide, group = self._wide[layer]
            parts = product(wide, x).split([other.out_features for other in group], -1)
            ready.update({other: (x, part) for other, part in zip(group, parts, strict=True)})
            return ready.pop(layer)[1]

        return joined


def _below_one_another(layers: Sequence[nn.Linear]) -> nn.Linear:
    weight = torch.cat([layer.weight.detach() for layer in layers])
    wide = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    wide.weight = nn.Parameter(weight, requires_grad=False)
    return wide


def watched(calls: list[tuple[nn.Linear, int]]) -> Product:
    """The library's own product. Adds to `calls` each layer and the number of its input: equal for the same input."""
    latest: list[Tensor] = []

    def product(layer: nn.Linear, x: Tensor) -> Tensor:
        number = calls[-1][1] if calls else 0
        calls.append((layer, number if latest and latest[0] is x else number + 1))
        latest[:] = [x]
        return plain(layer, x)

    return product


@contextmanager
def threads_for(product: Product) -> Iterator[Product]:
    """The product by all threads of torch, where everything else within is done by one.

    What takes some microseconds alone takes a hundred with help: the others must be woken each time.
    """
    count = torch.get_num_threads()

    def by_all(layer: nn.Linear, x: Tensor) -> Tensor:
        torch.set_num_threads(count)
        try:
            return product(layer, x)
        finally:
            torch.set_num_threads(1)

    torch.set_num_threads(1)
    try:
        yield by_all
    finally:
        torch.set_num_threads(count)
