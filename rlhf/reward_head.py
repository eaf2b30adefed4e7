"""Fitting the reward model's head alone, over frozen hidden states: convex, solved exactly, cheap for few labels.

A backbone's last hidden state knows much about a response; with dozens of labels a linear map of it learns what a
few steps of fine-tuning cannot. Each candidate is computed once, however often the model is refitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf.backbones import device_of
from rlhf.bradley_terry import pair_targets, slate_loss
from rlhf.packing import Group, hidden_states, pack
from rlhf.reward_model import ScoreModel
from rlhf.reward_training import Example

States = dict[Group, Tensor]  # (K, H) last hidden states of a slate's candidates, by slate


@torch.no_grad()
def last_states(model: ScoreModel, group: Group, pad_id: int) -> Tensor:
    """(K, H) hidden state at each candidate's last token. One slate at a time: no padding, so the same bits always."""
    packed = pack([group], pad_id, device_of(model))
    return hidden_states(model.decoder, packed)[packed.row, packed.last].float()


def fit_head(model: ScoreModel, examples: Sequence[Example], ridge: float, pad_id: int, known: States) -> list[float]:
    """Set the head to the minimum of `Σ_slates ℓ + ridge·‖w∘s‖²`, with ℓ the Bradley-Terry loss of a slate.

    s: (H,) standard deviation of each feature over the candidates, so that the penalty (a Gaussian prior) does not
    hang on a feature's unit. The minimum is unique and does not depend on where the head stood. `known` keeps the
    states of slates seen before. Returns the mean loss of a slate, before and after.
    """
    examples = [e for e in examples if e.preferences]
    for example in examples:
        if example.group not in known:
            known[example.group] = last_states(model, example.group, pad_id)
    states = torch.cat([known[e.group] for e in examples])
    targets = pair_targets([(len(e.group.candidates), e.preferences) for e in examples], states.device)
    scale = states.std(0).clamp(min=1e-4)
    features = (states - states.mean(0)) / scale
    weight = torch.zeros(features.shape[1], device=features.device, requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        return slate_loss(features @ weight, targets) + ridge / len(examples) * (weight**2).sum()

    def closure() -> Tensor:
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.no_grad():
        before = slate_loss(model.head(states)[:, 0], targets).item()
    solver.step(closure)
    with torch.no_grad():
        model.head.weight.copy_((weight / scale)[None])
        after = slate_loss(features @ weight, targets).item()
    return [before, after]
