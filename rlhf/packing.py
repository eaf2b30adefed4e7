"""Prompts and their candidates laid out for one forward: the prompt once, then every candidate beside the others.

A row holds `[prompt | candidate 1 | candidate 2 | …]`. Each candidate sees the prompt and itself only, and its
positions continue from the prompt's end, so its hidden states are those of the plain sequence
`[prompt | candidate]`; a slate or a group costs `P + ΣT` tokens instead of `K·P + ΣT`. With one candidate in
each row this is the plain layout.

On a CPU attention is computed piece by piece (a prompt, a candidate), so that no pair of tokens is computed of which
one may not see the other; elsewhere, many small kernels would cost more than the one large one with a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from rlhf.attention import attention_by
from rlhf.backbones import device_of
from rlhf.shared_prefix import Prefix


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

    input_ids, position_ids: (S, L). owner: (S, L), 0 on the prompt, k on the k-th candidate, −1 on padding.
    lengths: of the prompt and of each candidate, row by row. row: (N,) the row of each candidate.
    column: (N, T) where in its row each token stands. before: (N, T) where the hidden state stands that predicts it.
    tokens: (N, T) ids. mask: (N, T), True on tokens.
    """

    input_ids: Tensor
    position_ids: Tensor
    owner: Tensor
    lengths: tuple[tuple[int, ...], ...]
    row: Tensor
    column: Tensor
    before: Tensor
    tokens: Tensor
    mask: Tensor

    @property
    def last(self) -> Tensor:
        """(N,) column of each candidate's last token."""
        return self.column.gather(1, self.mask.sum(1, keepdim=True) - 1)[:, 0]

    @property
    def visible(self) -> Tensor:
        """(S, 1, L, L), True where the first may look at the second."""
        length = self.owner.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.owner.device).tril()
        visible = (self.owner[:, None, :] == 0) | (self.owner[:, None, :] == self.owner[:, :, None])
        return (visible & causal & (self.owner[:, None, :] >= 0))[:, None]


def pack(groups: Sequence[Group], pad_id: int, device: torch.device | str = "cpu") -> Packed:
    """Lay out one row per group; candidates are numbered through the groups in order."""
    length = max(g.tokens for g in groups)
    count = sum(len(g.candidates) for g in groups)
    longest = max(len(c) for g in groups for c in g.candidates)
    ids = torch.full((len(groups), length), pad_id)
    positions = torch.zeros(len(groups), length, dtype=torch.long)
    owner = torch.full((len(groups), length), -1)
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
    lengths = tuple((len(g.prompt), *map(len, g.candidates)) for g in groups)
    ids, positions, owner, row, column, before, tokens, mask = (
        part.to(device) for part in (ids, positions, owner, row, column, before, tokens, mask)
    )
    return Packed(ids, positions, owner, lengths, row, column, before, tokens, mask)


def hidden_states(decoder: nn.Module, packed: Packed, prefix: Prefix | None = None) -> Tensor:
    """Run the decoder over the rows. Returns (S, L, H); what stands on padding means nothing.

    prefix: tokens that stand before every row, and are not among the L.
    """
    config: Any = getattr(decoder, "config", None)
    if not piecewise(decoder):
        return _masked(decoder, packed, prefix)
    real, before = packed.owner >= 0, prefix.tokens if prefix else 0
    pieces = _Pieces(packed.lengths, before, next(decoder.parameters()).dtype)
    with attention_by(config, "prefloop_pieces", _piecewise_attention):
        out = decoder(
            input_ids=packed.input_ids[real][None],
            position_ids=packed.position_ids[real][None] + before,
            past_key_values=prefix.cache(1) if prefix else None,
            use_cache=prefix is not None,
            pieces=pieces,
        )
    states = out.last_hidden_state[0]
    if real.all():
        return states.view(*real.shape, -1)
    return states.new_zeros(*real.shape, states.shape[-1]).masked_scatter(real[..., None], states)


def piecewise(decoder: nn.Module) -> bool:
    """Whether attention is computed piece by piece, and all else for real tokens only, in one row."""
    config: Any = getattr(decoder, "config", None)
    return device_of(decoder).type == "cpu" and getattr(config, "_attn_implementation", None) == "sdpa"


def _masked(decoder: nn.Module, packed: Packed, prefix: Prefix | None) -> Tensor:
    """The states by one attention of each row over itself, with what may not be seen masked."""
    dtype = next(decoder.parameters()).dtype
    before = prefix.tokens if prefix else 0
    visible = pad(packed.visible, (before, 0), value=True)
    # The least number of this type, not −inf: a padding token sees nothing, and −inf throughout would be NaN.
    hidden = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    hidden.masked_fill_(~visible, torch.finfo(dtype).min)
    out = decoder(
        input_ids=packed.input_ids,
        attention_mask=hidden,
        position_ids=packed.position_ids + before,
        past_key_values=prefix.cache(len(packed.input_ids)) if prefix else None,
        use_cache=prefix is not None,
    )
    return out.last_hidden_state


class _Pieces:
    """Where prompts and candidates stand in the one row of all real tokens.

    lengths: of all of them, in order, behind `prefix` tokens that all of them see. counts: how many of them each group
    has, its prompt first.
    """

    def __init__(self, lengths: Sequence[Sequence[int]], prefix: int, dtype: torch.dtype) -> None:
        self.prefix = prefix
        self.lengths = [n for row in lengths for n in row]
        self.counts = [len(row) for row in lengths]
        self.dtype = dtype
        self.masks: dict[tuple[int, int], Tensor] = {}

    def mask(self, before: int, length: int) -> Tensor:
        """(T, P + T): a piece sees all that stands before it, and itself up to where it is."""
        if (before, length) not in self.masks:
            unseen = torch.full((length, before + length), -torch.inf, dtype=self.dtype)
            self.masks[before, length] = unseen.triu(before + 1)
        return self.masks[before, length]


def _piecewise_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    pieces: _Pieces,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """Attention of (1, heads, tokens, d) queries, each candidate over its prompt and itself. (1, tokens, heads, d).

    Keys and values may have fewer heads, and begin with those of a prefix. All other arguments of the library's
    interface say nothing here.
    """
    of_prefix = key[:, :, : pieces.prefix], value[:, :, : pieces.prefix]
    own = query, key[:, :, pieces.prefix :], value[:, :, pieces.prefix :]
    parts = zip(*(x.split(pieces.lengths, dim=2) for x in own), strict=True)

    def attend(before: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What the next piece sees, of what stands before it and of itself, and all keys and values up to its end."""
        q, k, v = next(parts)
        seen, mask = before[0].shape[2], None
        if seen:
            k, v, mask = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2), pieces.mask(seen, q.shape[2])
        x = scaled_dot_product_attention(q, k, v, mask, is_causal=not seen, scale=scaling, enable_gqa=True)
        return x, (k, v)

    out = []
    for count in pieces.counts:
        states, prompt = attend(of_prefix)
        out += [states, *(attend(prompt)[0] for _ in range(count - 1))]
    return torch.cat(out, 2).transpose(1, 2), None


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
