"""Log-probabilities and entropies of response tokens, from one packed forward.

Only the hidden states that predict a response token meet the vocabulary: there is no (B, P+T, V) tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labeling.records import UserError
from rlhf.backbones import Backbone, decoder_of, head_of
from rlhf.packing import Group, Packed, hidden_states, pack


def token_logprobs(
    model: nn.Module, packed: Packed, temperature: float, entropy_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-probability of each response token and entropy of its distribution, at the sampling temperature.

    `logp_t = z_t[y_t]/τ − logsumexp(z_t/τ)`, `H_t = −Σ_v π_t(v) log π_t(v)` (nats; carries no gradient).
    Returns two (N, T) tensors, 0 outside the mask.
    """
    states = hidden_states(decoder_of(model), packed)
    picked = states[packed.row[:, None], packed.before][packed.mask]  # (n, H)
    logits = head_of(model)(picked).float() / temperature  # (n, V)
    log_z = logits.logsumexp(-1)
    logp = logits.gather(1, packed.tokens[packed.mask][:, None])[:, 0] - log_z
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropy = log_z - ((logits - log_z[:, None]).exp() * logits).sum(-1)
    blank = torch.zeros(packed.mask.shape, dtype=logp.dtype, device=logp.device)
    return blank.masked_scatter(packed.mask, logp), blank.masked_scatter(packed.mask, entropy)


def check_layout(backbone: Backbone) -> None:
    """Raise UserError unless packed log-probabilities equal those of the model's own plain forward.

    They differ for models whose logits are not `head(decoder(x))` (soft-capped or rescaled logits) or that
    ignore a custom attention mask (recurrent layers); with these, every ratio would be wrong in silence.
    """
    ids = list(range(5, 15))
    group = Group(tuple(ids[:4]), (tuple(ids[4:7]), tuple(ids[7:10])))
    with torch.no_grad():
        packed = pack([group], backbone.pad_id, next(backbone.model.parameters()).device)
        logp, _ = token_logprobs(backbone.model, packed, 1.0)
        worst = 0.0
        for n, candidate in enumerate(group.candidates):
            whole = torch.tensor([[*group.prompt, *candidate]], device=logp.device)
            plain = backbone.model(input_ids=whole).logits[0, 3:-1].float().log_softmax(-1)
            expected = plain.gather(1, whole[0, 4:, None])[:, 0]
            worst = max(worst, (logp[n, : len(candidate)] - expected).abs().max().item())
    if not worst < 1e-2:
        raise UserError(
            f"the model {backbone.name!r} does not compute plain causal log-probabilities (off by {worst:.3g} nats): "
            "choose a decoder-only model with full attention and an unscaled linear head"
        )
