"""Log-probabilities and entropies of response tokens, from one packed forward.

Only the hidden states that predict a response token meet the vocabulary, and only a block of them at a time: no tensor
here has (tokens, V) numbers. What backward needs of the vocabulary is computed again, block by block.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from labeling.records import UserError
from rlhf.backbones import Backbone, decoder_of, device_of, head_of
from rlhf.noted_forward import Noted
from rlhf.packing import Group, Packed, hidden_states, pack
from rlhf.shared_prefix import Prefix, prefill

BLOCK = 2**22  # numbers in a block of logits: 16 MB in float32, so a block and its exponentials stay near the cache


def token_logprobs(
    model: nn.Module,
    packed: Packed,
    temperature: float,
    entropy_gradient: bool = False,
    prefix: Prefix | None = None,
    noted: Noted | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each response token and entropy of its distribution, at the sampling temperature.

    `logp_t = z_t[y_t]/τ − logsumexp(z_t/τ)`, `H_t = −Σ_v π_t(v) log π_t(v)` (nats; its gradient only when asked for).
    prefix: tokens that stand before every row. noted: what sampling at this temperature, by these weights, has noted of
    the packed tokens; it spares the products. Returns two (N, T) tensors, 0 outside the mask.
    """
    with noted.notes.giving(noted.places) if noted else nullcontext():
        states = hidden_states(decoder_of(model), packed, prefix)
    picked = states[packed.row[:, None], packed.before][packed.mask]  # (n, H)
    drawn_from = (noted.log_z, noted.entropy) if noted else None
    logp, entropy = selective_log_softmax(
        picked, head_of(model), packed.tokens[packed.mask], temperature, entropy_gradient, drawn_from
    )
    blank = torch.zeros(packed.mask.shape, dtype=logp.dtype, device=logp.device)
    return blank.masked_scatter(packed.mask, logp), blank.masked_scatter(packed.mask, entropy)


def selective_log_softmax(
    states: Tensor,
    head: nn.Module,
    tokens: Tensor,
    temperature: float,
    entropy_gradient: bool = False,
    known: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """`log π(y)` and `H(π)` with `π = softmax(head(h)/τ)`, for (n, H) states and (n,) tokens. Returns (n,) and (n,).

    known: (n,) log Z and (n,) H of these distributions; without them a product with the whole head finds them.
    Numbers are in float32 at least. Raises UserError when the head is not a plain linear map.
    """
    if type(head) is not nn.Linear:
        raise UserError(
            f"the model's output head is a {type(head).__name__}, not a plain linear map: adapt its other layers only, "
            "or choose another model"
        )
    weight, bias = head.weight, head.bias
    if not torch.is_grad_enabled() or not (states.requires_grad or weight.requires_grad):
        return _distribution(states, weight, bias, tokens, temperature, known)[:2]
    if not entropy_gradient and not weight.requires_grad and (bias is None or not bias.requires_grad):
        return _by_frozen_head(states, weight, bias, tokens, temperature)
    logp, entropy = _SelectiveLogSoftmax.apply(states, weight, bias, tokens, temperature, known)
    return logp, entropy if entropy_gradient else entropy.detach()


def _by_frozen_head(
    states: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """With a head W that does not learn, `∂logp/∂h = (W_y − E_π W)/τ` comes along with logp, and backward is a product
    of (n, H) numbers: the logits are not computed again.
    """
    mean = torch.zeros_like(states)
    with torch.no_grad():
        logp, entropy, _ = _forward(states, weight, bias, tokens, temperature, mean)
        slope = (weight[tokens] - mean).div_(temperature)
    # The difference is 0 and has the gradient of the states.
    return logp + torch.linalg.vecdot(slope, states - states.detach()), entropy


class _SelectiveLogSoftmax(torch.autograd.Function):
    """Keeps the hidden states and two numbers a token, never logits: backward computes them again.

    With z' = z/τ: `∂logp/∂z' = 1[v = y] − π` and `∂H/∂z' = −π·(log π + H)`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        temperature: float,
        known: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        logp, entropy, log_z = _distribution(states, weight, bias, tokens, temperature, known)
        ctx.save_for_backward(states, weight, bias, tokens, log_z, entropy)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_logp: Tensor | None, of_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        states, weight, bias, tokens, log_z, entropy = ctx.saved_tensors
        wants_states, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        a = torch.zeros_like(log_z) if of_logp is None else of_logp / ctx.temperature
        b = None if of_entropy is None else of_entropy / ctx.temperature
        of_chosen = a.to(states.dtype)[:, None]  # the term 1[v = y], added apart from the blocks
        d_states = of_chosen * weight[tokens] if wants_states else None
        d_weight = torch.empty_like(weight) if wants_weight else None
        d_bias = torch.empty_like(bias) if wants_bias else None
        for block in _blocks(len(tokens), len(weight)):
            log_pi = _logits(states, weight, bias, block, ctx.temperature).sub_(log_z[:, None])
            factor = -a[:, None] if b is None else -a[:, None] - b[:, None] * (log_pi + entropy[:, None])
            d_z = log_pi.exp_().mul_(factor).to(states.dtype)
            if d_states is not None:
                d_states.addmm_(d_z, weight[block])
            if d_weight is not None:
                torch.mm(d_z.T, states, out=d_weight[block])
            if d_bias is not None:
                d_bias[block] = d_z.sum(0)
        if d_weight is not None:
            d_weight.index_add_(0, tokens, of_chosen * states)
        if d_bias is not None:
            d_bias.index_add_(0, tokens, of_chosen[:, 0])
        return d_states, d_weight, d_bias, None, None, None


def _blocks(rows: int, vocabulary: int) -> list[slice]:
    """Cut the vocabulary, and not the rows: so each piece of the head is read, and its gradient written, once."""
    width = max(1, BLOCK // max(1, rows))
    return [slice(v, min(v + width, vocabulary)) for v in range(0, vocabulary, width)]


def _logits(states: Tensor, weight: Tensor, bias: Tensor | None, block: slice, temperature: float) -> Tensor:
    """(n, width) of the scaled logits, in float32 at least."""
    z = linear(states, weight[block], None if bias is None else bias[block])
    return z.to(torch.promote_types(z.dtype, torch.float32)).div_(temperature)


def _distribution(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    temperature: float,
    known: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(n,) log-probabilities, entropies and log Z: with the last two known, the chosen logits say the first."""
    if known is None:
        return _forward(states, weight, bias, tokens, temperature)
    log_z, entropy = known
    z = torch.linalg.vecdot(states, weight[tokens]) + (0 if bias is None else bias[tokens])
    return z.to(log_z.dtype) / temperature - log_z, entropy.clone(), log_z


def _forward(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    temperature: float,
    mean: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(n,) log-probabilities, entropies and log Z, with a running maximum m over the blocks.

    `s = Σ e^(z−m)` and `u = Σ e^(z−m)·z` give `log Z = m + log s` and `H = log Z − u/s`. mean: (n, H) zeros, to which
    `E_π W`, the mean row of the weights under π, is added.
    """
    kind = torch.promote_types(states.dtype, torch.float32)
    chosen, s, u = (torch.zeros(len(tokens), dtype=kind, device=states.device) for _ in range(3))
    m = torch.full_like(s, -torch.inf)
    for block in _blocks(len(tokens), len(weight)):
        z = _logits(states, weight, bias, block, temperature)
        inside = ((tokens >= block.start) & (tokens < block.stop)).nonzero()[:, 0]
        chosen[inside] = z[inside, tokens[inside] - block.start]
        higher = torch.maximum(m, z.amax(1))
        shrink = (m - higher).exp_()
        e = (z - higher[:, None]).exp_()
        s = s * shrink + e.sum(1)
        u = u * shrink + torch.linalg.vecdot(e, z)
        if mean is not None:
            mean.mul_(shrink[:, None]).addmm_(e.to(mean.dtype), weight[block])
        m = higher
    if mean is not None:
        mean.div_(s[:, None])
    log_z = m + s.log()
    return chosen - log_z, log_z - u / s, log_z


def check_layout(backbone: Backbone) -> None:
    """Raise UserError unless packed log-probabilities, behind a prefix too, equal those of the model's plain forward.

    They differ for models whose logits are not `head(decoder(x))` (soft-capped or rescaled logits) or that
    ignore a custom attention mask (recurrent layers); with these, every ratio would be wrong in silence.
    """
    ids = tuple(range(5, 15))
    worst = 0.0
    with torch.no_grad():
        for shared in (0, 2):
            group = Group(ids[shared:4], (ids[4:7], ids[7:10]))
            packed = pack([group], backbone.pad_id, device_of(backbone.model))
            prefix = prefill(decoder_of(backbone.model), ids[:shared]) if shared else None
            logp, _ = token_logprobs(backbone.model, packed, 1.0, prefix=prefix)
            for n, candidate in enumerate(group.candidates):
                whole = torch.tensor([[*ids[:4], *candidate]], device=logp.device)
                plain = backbone.model(input_ids=whole).logits[0, 3:-1].float().log_softmax(-1)
                expected = plain.gather(1, whole[0, 4:, None])[:, 0]
                worst = max(worst, (logp[n, : len(candidate)] - expected).abs().max().item())
    if not worst < 1e-2:
        raise UserError(
            f"the model {backbone.name!r} does not compute plain causal log-probabilities (off by {worst:.3g} nats): "
            "choose a decoder-only model with full attention and an unscaled linear head"
        )
