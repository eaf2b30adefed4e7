"""Sampling responses: prompts prefilled once, their cache expanded to G rows, finished rows leaving the batch.

Everything random comes from the given generator, so the same seed gives the same responses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from labeling.records import UserError
from rlhf.backbones import Backbone, decoder_of, device_of, head_of
from rlhf.shared_prompts import continuation

SHRINK_BELOW = 0.75  # copying the cache to fewer rows pays once a quarter of them have finished
BLOCK = 256  # tokens of the vocabulary that are drawn together at first


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
    called after each position. Raises UserError for a model whose logits are NaN or infinite.
    """
    device, decoder, head = device_of(model), decoder_of(model), head_of(model)
    count = len(prompts) * per_prompt
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), backbone.pad_id)
    attention = torch.zeros(len(prompts), longest, dtype=torch.long)
    for b, prompt in enumerate(prompts):
        ids[b, longest - len(prompt) :] = torch.tensor(prompt)
        attention[b, longest - len(prompt) :] = 1
    ids, attention = ids.to(device), attention.to(device)
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    out = decoder(input_ids=ids, attention_mask=attention, position_ids=positions, use_cache=True)
    onward = continuation(decoder, out.past_key_values, attention, per_prompt, max_new_tokens - 1)
    logits = _logits(head, out.last_hidden_state[:, -1])
    if not logits.amax(1).isfinite().all():
        raise UserError(
            "the model gives no probabilities, but NaN or infinity: it came damaged, or an update was too large and "
            "learning_rate in [recipe] must be lower"
        )
    logits = logits.repeat_interleave(per_prompt, 0)

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
            onward.keep(keep)
            rows, token = rows[keep], token[keep]
        logits = _logits(head, onward.states(token))
    on_token(max_new_tokens, max_new_tokens)

    responses = [
        Sampled(tuple(tokens[n, :length].tolist()), tuple(logps[n, :length].tolist()), bool(finished[n]))
        for n, length in enumerate(lengths.tolist())
    ]
    return [responses[b * per_prompt : (b + 1) * per_prompt] for b in range(len(prompts))]


def _logits(head: nn.Module, states: Tensor) -> Tensor:
    """(R, V) of the head at (R, H) states. On a CPU in blocks: one large product of few rows runs at half the speed."""
    assert isinstance(head, nn.Linear)  # see check_layout
    width = 4 * BLOCK if states.device.type == "cpu" else len(head.weight)
    starts = range(0, len(head.weight), width)
    bias = head.bias
    blocks = ((head.weight[v : v + width], None if bias is None else bias[v : v + width]) for v in starts)
    return torch.cat([linear(states, weight, bias) for weight, bias in blocks], 1)


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One token for each row of (R, V) logits, and its log-probability at the temperature."""
    scaled = logits.float() / (temperature or 1.0)
    highest = scaled.amax(1, keepdim=True)
    weights = (scaled - highest).exp_()
    token = scaled.argmax(1) if temperature == 0 else _pick(weights, generator)
    return token, (scaled.gather(1, token[:, None]) - highest)[:, 0] - weights.sum(1).log()


def _pick(weights: Tensor, generator: torch.Generator) -> Tensor:
    """(R,) places drawn in proportion to (R, V) weights: a block by its sum, then a place in it.

    Two uniform numbers a row, each looked up in a cumulative sum; `torch.multinomial` draws V of them.
    """
    u = torch.rand(2, len(weights), 1, dtype=torch.float64, generator=generator, device=generator.device)
    u = u.to(weights.device)
    blocks = pad(weights, (0, -weights.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    sums = blocks.sum(2).double().cumsum(1)
    block = torch.searchsorted(sums, u[0] * sums[:, -1:], right=True)
    within = blocks.gather(1, block[..., None].expand(-1, 1, BLOCK))[:, 0].double().cumsum(1)
    return (block * BLOCK + torch.searchsorted(within, u[1] * within[:, -1:], right=True))[:, 0]
