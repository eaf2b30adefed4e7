"""A rollout: sampled responses with everything the update needs to know about them, in (N, T) tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.logprobs import token_logprobs
from rlhf.packing import Group, micro_batches, pack
from rlhf.policy import Policy
from rlhf.reward_model import ScoreModel
from rlhf.sampling import Sampled


@dataclass(frozen=True)
class Rollout:
    """N responses to the prompts of `groups`, numbered through the groups in order.

    group: (N,) which prompt. mask, old_logp, ref_logp: (N, T). scores: (N,) outcome rewards.
    values: (N, T) the critic's values at sampling time, or None. missing: responses left out for want of a reward.
    """

    groups: tuple[Group, ...]
    group: Tensor
    mask: Tensor
    old_logp: Tensor
    ref_logp: Tensor
    scores: Tensor
    values: Tensor | None
    missing: int


def assemble(
    policy: Policy,
    critic: ScoreModel | None,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sampled]],
    rewards: Sequence[Sequence[float | None]],
    temperature: float,
    token_budget: int,
) -> Rollout:
    """Put samples and their rewards together, with reference log-probabilities and values.

    A response whose reward is missing (None or NaN) is left out and counted; it never becomes a 0. Prompts that
    keep no response are dropped. Raises ValueError when nothing is left.
    """
    groups: list[Group] = []
    group: list[int] = []
    old: list[tuple[float, ...]] = []
    scores: list[float] = []
    missing = 0
    for prompt, sampled, given in zip(prompts, responses, rewards, strict=True):
        kept = [(s, r) for s, r in zip(sampled, given, strict=True) if r is not None and r == r]
        missing += len(sampled) - len(kept)
        if kept:
            group += [len(groups)] * len(kept)
            groups.append(Group(tuple(prompt), tuple(s.ids for s, _ in kept)))
            old += [s.logp for s, _ in kept]
            scores += [r for _, r in kept]
    if not groups:
        raise ValueError(f"all {missing} rewards are missing")
    shape = (len(old), max(map(len, old)))
    old_logp, mask = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for n, logp in enumerate(old):
        old_logp[n, : len(logp)] = torch.tensor(logp)
        mask[n, : len(logp)] = True
    ref_logp = torch.zeros(shape)
    values = None if critic is None else torch.zeros(shape)
    device = next(policy.model.parameters()).device
    first = first_candidates(groups)
    for batch in micro_batches(groups, token_budget):
        packed = pack([groups[i] for i in batch], policy.backbone.pad_id, device)
        rows = candidate_rows(first, batch)
        width = packed.mask.shape[1]
        with policy.reference() as reference:
            ref_logp[rows, :width] = token_logprobs(reference, packed, temperature)[0].cpu()
        if critic is not None and values is not None:
            with torch.no_grad():
                values[rows, :width] = critic.values(packed).cpu()
    return Rollout(tuple(groups), torch.tensor(group), mask, old_logp, ref_logp, torch.tensor(scores), values, missing)


def first_candidates(groups: Sequence[Group]) -> list[int]:
    """Number of the first candidate of each group, and after the last the count of all."""
    first = [0]
    for g in groups:
        first.append(first[-1] + len(g.candidates))
    return first


def candidate_rows(first: Sequence[int], batch: Sequence[int]) -> Tensor:
    """Numbers of the candidates of the groups `batch`, in the order in which `pack` numbers them."""
    return torch.cat([torch.arange(first[i], first[i + 1]) for i in batch])
