"""The linear layers of a decoder, where nearly all of its arithmetic is, and other ways to compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

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
