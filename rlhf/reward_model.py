"""The reward model: a language model's decoder with a scalar head, and the critic that is made from it.

The score of a response is the head's value at its last token; the critic reads the same head at every state.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from rlhf.backbones import Backbone, decoder_of, device_of
from rlhf.noted_forward import Noted
from rlhf.packing import Group, Packed, hidden_states, micro_batches, pack
from rlhf.resting import awake

Adaptation = Literal["full", "lora", "head"]


class ScoreModel(nn.Module):
    """`score = (w·h_last − mean) / std` with w a new [hidden, 1] head, zero at first.

    mean and std are buffers that put the reference responses at mean 0 and std 1 (see `normalise`).
    """

    def __init__(self, decoder: nn.Module, hidden: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.head.weight)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def raw_scores(self, packed: Packed) -> Tensor:
        """(N,) unnormalised score of each candidate: the Bradley-Terry loss is on these."""
        states = hidden_states(self.decoder, packed)[packed.row, packed.last]
        return self.head(states)[:, 0].float()

    def values(self, packed: Packed, noted: Noted | None = None) -> Tensor:
        """(N, T) normalised value of the state before each token. noted: what is kept of a forward over them."""
        with noted.notes.giving(noted.places) if noted else nullcontext():
            states = hidden_states(self.decoder, packed)[packed.row[:, None], packed.before]
        return ((self.head(states)[..., 0].float() - self.mean) / self.std) * packed.mask


def make_reward_model(backbone: Backbone, adaptation: Adaptation, lora_rank: int) -> ScoreModel:
    """A reward model that starts from the backbone (its own copy of the weights). "head": nothing else is trained."""
    decoder = copy.deepcopy(decoder_of(backbone.model))
    if adaptation == "head":
        decoder.requires_grad_(False)
    if adaptation == "lora":
        from rlhf.adapters import add_lora  # peft takes a while to load

        decoder = add_lora(decoder, lora_rank)
    model = ScoreModel(decoder, int(backbone.model.config.hidden_size)).to(device_of(backbone.model))
    return model.eval()


def make_critic(reward_model: ScoreModel) -> ScoreModel:
    """A critic that starts as the reward model, head and scale included (InstructGPT, arXiv 2203.02155)."""
    return copy.deepcopy(reward_model)


@torch.no_grad()
def score_groups(model: ScoreModel, groups: Sequence[Group], pad_id: int, token_budget: int) -> Tensor:
    """(N,) normalised scores of all candidates of all groups, in order."""
    scores: list[Tensor | None] = [None] * len(groups)
    with awake(model.decoder):
        for batch in micro_batches(groups, token_budget):
            flat = model.raw_scores(pack([groups[i] for i in batch], pad_id, device_of(model)))
            for i, part in zip(batch, flat.split([len(groups[i].candidates) for i in batch]), strict=True):
                scores[i] = part
    return (torch.cat([s for s in scores if s is not None]) - model.mean) / model.std


def normalise(model: ScoreModel, references: Sequence[Group], pad_id: int, token_budget: int) -> None:
    """Set the scale so that the reference responses have mean 0 and std 1: proxies of all refits compare."""
    model.mean.zero_()
    model.std.fill_(1.0)
    scores = score_groups(model, references, pad_id, token_budget)
    model.mean.copy_(scores.mean())
    model.std.copy_(scores.std().clamp(min=1e-4))
