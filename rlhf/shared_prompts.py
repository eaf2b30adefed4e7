"""Going on from prompts while sampling: what the prompts' tokens left in each layer stays there once for all responses.

A new token looks at its prompt and at the tokens of its own response. With keys and values split accordingly, the first
are read once a prompt instead of once a response, as products of many queries by one matrix (arXiv 2402.05099).
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from rlhf.attention import attention_by


class Continuation(Protocol):
    """Rows of responses, R of them, that grow by a token at a time."""

    def states(self, token: Tensor) -> Tensor:
        """(R, H) hidden states at the next token of each row, (R,)."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone."""


def continuation(decoder: nn.Module, cache: Any, attention: Tensor, repeats: int, room: int) -> Continuation:
    """Go on from B prefilled prompts with `repeats` rows each, for at most `room` tokens.

    attention: (B, P), 1 on real tokens, which stand at the right. A layer of a kind of its own (a sliding window, say)
    is repeated for each row and grows as its library wants it to.
    """
    from transformers.cache_utils import DynamicLayer

    config: Any = decoder.config
    if config._attn_implementation == "sdpa" and all(type(layer) is DynamicLayer for layer in cache.layers):
        return _Shared(decoder, cache, attention, repeats, room)
    return _Repeated(decoder, cache, attention, repeats)


class _Repeated:
    """Rows with a copy of their prompt each, in the library's own cache."""

    def __init__(self, decoder: nn.Module, cache: Any, attention: Tensor, repeats: int) -> None:
        self.decoder, self.cache = decoder, cache
        for layer in cache.layers:
            layer.batch_repeat_interleave(repeats)
        self.attention = attention.repeat_interleave(repeats, 0)
        self.position = self.attention.sum(1)

    def states(self, token: Tensor) -> Tensor:
        self.attention = pad(self.attention, (0, 1), value=1)
        out = self.decoder(
            input_ids=token[:, None],
            attention_mask=self.attention,
            position_ids=self.position[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.position = self.position + 1
        return out.last_hidden_state[:, -1]

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.attention, self.position = self.attention[rows], self.position[rows]


class _Shared:
    """Rows that share their prompt's keys and values, and have room for their own.

    prompts, own: for each layer keys and values, (B, heads, P, d) and (R, heads, room, d). unseen: (B, P), −inf where a
    prompt is padded. place: (B, G) which row, with each prompt's rows side by side. back: (R,) where each row is there.
    """

    def __init__(self, decoder: nn.Module, cache: Any, attention: Tensor, repeats: int, room: int) -> None:
        self.decoder = decoder
        self.prompts = [(layer.keys, layer.values) for layer in cache.layers]
        rows, device = len(attention) * repeats, attention.device
        self.own = [tuple(x.new_empty(rows, x.shape[1], room, x.shape[3]) for x in pair) for pair in self.prompts]
        self.unseen = torch.zeros(attention.shape, device=device).masked_fill_(attention == 0, -torch.inf)
        self.prompt_of = torch.arange(len(attention), device=device).repeat_interleave(repeats)
        self.position = attention.sum(1).repeat_interleave(repeats)
        self.used = 0
        self._arrange()

    def _arrange(self) -> None:
        counts = torch.bincount(self.prompt_of, minlength=len(self.unseen)).tolist()
        rows = torch.arange(len(self.prompt_of), device=self.prompt_of.device)
        self.place = pad_sequence(list(rows.split(counts)), batch_first=True)
        within = torch.cat([rows[:count] for count in counts])
        self.back = self.prompt_of * self.place.shape[1] + within

    def states(self, token: Tensor) -> Tensor:
        self.used += 1
        with attention_by(self.decoder.config, "prefloop_shared", _shared_attention):
            out = self.decoder(
                input_ids=token[:, None], position_ids=self.position[:, None], use_cache=False, shared=self
            )
        self.position = self.position + 1
        return out.last_hidden_state[:, -1]

    def keep(self, rows: Tensor) -> None:
        self.own = [tuple(x[rows] for x in pair) for pair in self.own]
        self.position = self.position[rows]
        left, self.prompt_of = self.prompt_of[rows].unique(return_inverse=True)
        if len(left) < len(self.unseen):
            self.prompts = [tuple(x[left] for x in pair) for pair in self.prompts]
            self.unseen = self.unseen[left]
        self._arrange()

    def by_prompt(self, x: Tensor) -> Tensor:
        """(B, heads, G·m, n) of (R, heads, m, n)."""
        return x[self.place].transpose(1, 2).flatten(2, 3)

    def by_row(self, x: Tensor) -> Tensor:
        """(R, heads, m, n) of (B, heads, G·m, n)."""
        return x.unflatten(2, (self.place.shape[1], -1)).transpose(1, 2).flatten(0, 1)[self.back]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """(R, heads, m, d): what m queries at the newest token see, of the prompt and of the row up to itself."""
        keys, values = self.own[layer]
        keys[:, :, self.used - 1], values[:, :, self.used - 1] = key[:, :, 0], value[:, :, 0]
        keys, values = keys[:, :, : self.used], values[:, :, : self.used]
        prompt_keys, prompt_values = self.prompts[layer]
        query = query * scale
        seen = self.by_prompt(query) @ prompt_keys.mT + self.unseen[:, None, None]
        weights = torch.cat([self.by_row(seen), query @ keys.mT], -1).softmax(-1)
        of_prompt, of_own = weights.split([prompt_keys.shape[2], self.used], -1)
        return self.by_row(self.by_prompt(of_prompt) @ prompt_values) + of_own @ values


def _shared_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    shared: _Shared,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """Attention of (R, heads, 1, d) queries, for the library's interface. Returns (R, 1, heads, d).

    Keys and values may have fewer heads: those queries that share one are side by side.
    """
    heads = query.unflatten(1, (key.shape[1], -1))[:, :, :, 0]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer: Any = module.layer_idx
    return shared.attend(layer, heads, key, value, scale).flatten(1, 2)[:, None], None
