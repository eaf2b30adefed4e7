"""Prompts and their candidates laid out for one forward: the prompt once, then every candidate beside the others.

A row holds `[prompt | candidate 1 | candidate 2 | …]`. Each candidate sees the prompt and itself only, and its
positions continue from the prompt's end, so its hidden states are those of the plain sequence
`[prompt | candidate]`; a slate or a group costs `P + ΣT` tokens instead of `K·P + ΣT`. With one candidate in
each row this is the plain layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Group:
    """Token ids of one prompt and of the candidates that share it. No candidate is empty."""

    prompt: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """Length of the packed row."""
        return len(self.prompt) + sum(map(len, self.candidates))


@dataclass(frozen=True)
class Packed:
    """S rows of length L that hold N candidates of at most T tokens.

    input_ids, position_ids: (S, L). visible: (S, 1, L, L), True where the first may look at the second.
    row: (N,) the row of each candidate. column: (N, T) where in its row each token stands.
    before: (N, T) where the hidden state stands that predicts it. tokens: (N, T) ids. mask: (N, T), True on tokens.
    """

    input_ids: Tensor
    position_ids: Tensor
    visible: Tensor
    row: Tensor
    column: Tensor
    before: Tensor
    tokens: Tensor
    mask: Tensor

    @property
    def last(self) -> Tensor:
        """(N,) column of each candidate's last token."""
        return self.column.gather(1, self.mask.sum(1, keepdim=True) - 1)[:, 0]


def pack(groups: Sequence[Group], pad_id: int, device: torch.device | str = "cpu") -> Packed:
    """Lay out one row per group; candidates are numbered through the groups in order."""
    length = max(g.tokens for g in groups)
    count = sum(len(g.candidates) for g in groups)
    longest = max(len(c) for g in groups for c in g.candidates)
    ids = torch.full((len(groups), length), pad_id)
    positions = torch.zeros(len(groups), length, dtype=torch.long)
    owner = torch.full((len(groups), length), -1)  # 0 = prompt, k = k-th candidate, -1 = padding
    row = torch.empty(count, dtype=torch.long)
    column, before, tokens = (torch.zeros(count, longest, dtype=torch.long) for _ in range(3))
    mask = torch.zeros(count, longest, dtype=torch.bool)
    n = 0
    for s, group in enumerate(groups):
        start = p = len(group.prompt)
        ids[s, :p] = torch.tensor(group.prompt)
        positions[s, :p] = torch.arange(p)
        owner[s, :p] = 0
        for k, candidate in enumerate(group.candidates, 1):
            t = len(candidate)
            span = torch.arange(start, start + t)
            ids[s, span] = tokens[n, :t] = torch.tensor(candidate)
            positions[s, span] = torch.arange(p, p + t)
            owner[s, span] = k
            row[n], column[n, :t], mask[n, :t] = s, span, True
            before[n, 0], before[n, 1:t] = p - 1, span[:-1]
            start, n = start + t, n + 1
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = (owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None])
    visible &= causal & (owner[:, None, :] >= 0)
    parts = (ids, positions, visible[:, None], row, column, before, tokens, mask)
    return Packed(*(part.to(device) for part in parts))


def hidden_states(decoder: nn.Module, packed: Packed) -> Tensor:
    """Run the decoder over the rows. Returns (S, L, H)."""
    dtype = next(decoder.parameters()).dtype
    # The least number of this type, not −inf: a padding token sees nothing, and −inf throughout would be NaN.
    hidden = torch.zeros(packed.visible.shape, dtype=dtype, device=packed.visible.device)
    hidden.masked_fill_(~packed.visible, torch.finfo(dtype).min)
    out = decoder(
        input_ids=packed.input_ids,
        attention_mask=hidden,
        position_ids=packed.position_ids,
        use_cache=False,
    )
    return out.last_hidden_state


def micro_batches(groups: Sequence[Group], token_budget: int) -> Iterator[list[int]]:
    """Cut groups into micro-batches of at most `token_budget` padded tokens, similar lengths together.

    Yields lists of indices into `groups`, longest first, so that memory peaks at once and not late. A group
    longer than the budget comes alone.
    """
    order = sorted(range(len(groups)), key=lambda i: (-groups[i].tokens, i))
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * groups[batch[0]].tokens > token_budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
