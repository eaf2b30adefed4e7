"""Sampling responses: prompts prefilled once, their cache expanded to G rows, finished rows leaving the batch.

Everything random comes from the given generator, so the same seed gives the same responses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlhf.backbones import Backbone, device_of

SHRINK_BELOW = 0.75  # copying the cache to fewer rows pays once a quarter of them have finished


@dataclass(frozen=True)
class Sampled:
    """One response: its token ids (with the end-of-sequence token if it was reached) and their log-probabilities."""

    ids: tuple[int, ...]
    logp: tuple[float, ...]
    finished: bool


@torch.no_grad()
def sample(
    backbone: Backbone,
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    per_prompt: int,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator,
    on_token: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[Sampled]]:
    """Sample `per_prompt` responses for each prompt at `temperature` (0 = greedy).

    Returns one list of responses per prompt. `logp` is at the sampling temperature. `on_token(done, total)` is
    called after each position.
    """
    device = device_of(model)
    count = len(prompts) * per_prompt
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), backbone.pad_id)
    attention = torch.zeros(len(prompts), longest, dtype=torch.long)
    for b, prompt in enumerate(prompts):
        ids[b, longest - len(prompt) :] = torch.tensor(prompt)
        attention[b, longest - len(prompt) :] = 1
    ids, attention = ids.to(device), attention.to(device)
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    out = model(input_ids=ids, attention_mask=attention, position_ids=positions, use_cache=True, logits_to_keep=1)
    cache = out.past_key_values
    cache.batch_repeat_interleave(per_prompt)
    attention = attention.repeat_interleave(per_prompt, 0)
    position = attention.sum(1)
    logits = out.logits[:, -1].repeat_interleave(per_prompt, 0)

    tokens = torch.full((count, max_new_tokens), backbone.pad_id, device=device)
    logps = torch.zeros(count, max_new_tokens, device=device)
    lengths = torch.full((count,), max_new_tokens, device=device)
    finished = torch.zeros(count, dtype=torch.bool, device=device)
    ends = torch.tensor(backbone.eos_ids, device=device)
    rows = torch.arange(count, device=device)  # which response each row of the batch is
    for t in range(max_new_tokens):
        token, logp = _draw(logits, temperature, generator)
        alive = ~finished[rows]
        tokens[rows[alive], t], logps[rows[alive], t] = token[alive], logp[alive]
        ended = alive & torch.isin(token, ends)
        lengths[rows[ended]] = t + 1
        finished[rows[ended]] = True
        on_token(t + 1, max_new_tokens)
        alive &= ~ended
        if not alive.any() or t + 1 == max_new_tokens:
            break
        if alive.sum() < SHRINK_BELOW * len(rows):
            keep = alive.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            rows, token, attention, position = rows[keep], token[keep], attention[keep], position[keep]
        attention = torch.cat([attention, attention.new_ones(len(rows), 1)], 1)
        out = model(
            input_ids=token[:, None],
            attention_mask=attention,
            position_ids=position[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        logits, position = out.logits[:, -1], position + 1
    on_token(max_new_tokens, max_new_tokens)

    responses = [
        Sampled(tuple(tokens[n, :length].tolist()), tuple(logps[n, :length].tolist()), bool(finished[n]))
        for n, length in enumerate(lengths.tolist())
    ]
    return [responses[b * per_prompt : (b + 1) * per_prompt] for b in range(len(prompts))]


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One token for each row of (R, V) logits, and its log-probability at the temperature."""
    if temperature == 0:
        scaled = logits.float().log_softmax(-1)
        token = scaled.argmax(-1)
    else:
        scaled = (logits.float() / temperature).log_softmax(-1)
        # Drawn where the generator lives, so that a seed means the same on every device.
        weights = scaled.exp().to(generator.device)
        token = torch.multinomial(weights, 1, generator=generator)[:, 0].to(logits.device)
    return token, scaled.gather(1, token[:, None])[:, 0]
