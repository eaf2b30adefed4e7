"""What all rows of a forward begin with, computed once: the keys and values that it left in each layer.

A token's keys and values depend on the tokens before it alone, so those of a common beginning are the same in every row
(arXiv 2402.05099). Rows that go on from it cost their own tokens only. Nothing here is differentiated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.backbones import device_of


@dataclass(frozen=True)
class Prefix:
    """P tokens that stand before every row. layers: keys and values of each, (1, heads, P, d)."""

    tokens: int
    layers: tuple[tuple[Tensor, Tensor], ...]

    def cache(self, rows: int) -> Any:
        """The library's cache of so many rows that begin so; what it grows by is not kept here."""
        from transformers import DynamicCache

        return DynamicCache(
            [(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)) for keys, values in self.layers]
        )


def common_length(rows: Sequence[tuple[int, ...]]) -> int:
    """How many tokens several rows begin with alike, each of them left with a token of its own; 0 for one row."""
    if len(rows) < 2:
        return 0
    alike = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*rows, strict=False)))
    return min(alike, min(map(len, rows)) - 1)


@torch.no_grad()
def prefill(decoder: nn.Module, ids: Sequence[int]) -> Prefix:
    """Run the decoder over these tokens, at least one, for what they leave behind."""
    out = decoder(input_ids=torch.tensor([ids], device=device_of(decoder)), use_cache=True)
    return Prefix(len(ids), tuple((layer.keys, layer.values) for layer in out.past_key_values.layers))
