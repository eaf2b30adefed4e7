"""A rollout: sampled responses with everything the update needs to know about them, in (N, T) tensors.

Three steps lead to it: `collect` puts samples and rewards together, `choose` applies the recipe's filter prompt by
prompt, `assemble` adds what the reference and the critic say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlhf.filters import FilterFn
from rlhf.logprobs import token_logprobs
from rlhf.masked import masked_mean
from rlhf.noted_forward import Noted, Notes, of_group
from rlhf.packing import Group, micro_batches, pack, piecewise
from rlhf.policy import Policy
from rlhf.reward_model import ScoreModel
from rlhf.rewards import Scores, Steps
from rlhf.sampling import Sampled


@dataclass(frozen=True)
class Scored:
    """One response with its reward. steps: step rewards, if there are any. count: how often it enters the update."""

    sampled: Sampled
    score: float
    steps: Steps = ()
    count: float = 1.0


@dataclass(frozen=True)
class ScoredGroup:
    """The scored responses to one prompt. baseline: the score of the greedy response, if the recipe asks for it."""

    prompt: tuple[int, ...]
    responses: tuple[Scored, ...]
    baseline: float | None = None


@dataclass(frozen=True)
class Rollout:
    """N responses to the prompts of `groups`, numbered through the groups in order.

    group: (N,) which prompt. mask, old_logp, ref_logp: (N, T). scores: (N,) outcome rewards. count: (N,) how often each
    enters. values: (N, T) the critic's values at sampling time, or None. baseline: (N,) greedy scores, or None.
    step_scores: (N, T) step rewards at the ends of steps, NaN elsewhere, or None. longest: the most tokens allowed.
    missing: responses left out for want of a reward. unused: responses that the filter left out. mismatch: mean of
    |noted − recomputed| log-probabilities, where they were computed again and so no step can tell any more.
    noted: for each group what is kept of the policy's forwards over it while sampling, or None. values_noted: of the
    critic's forward over it.
    """

    groups: tuple[Group, ...]
    group: Tensor
    mask: Tensor
    old_logp: Tensor
    ref_logp: Tensor
    scores: Tensor
    count: Tensor
    values: Tensor | None
    baseline: Tensor | None
    step_scores: Tensor | None
    longest: int
    missing: int = 0
    unused: int = 0
    mismatch: float | None = None
    noted: tuple[Noted | None, ...] = ()
    values_noted: tuple[Noted | None, ...] = ()


def collect(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sampled]],
    scores: Scores,
    steps: Sequence[Sequence[Steps]] | None = None,
    baselines: Sequence[float | None] | None = None,
) -> tuple[list[ScoredGroup], int]:
    """Put samples and rewards together. Returns the groups, and how many responses have no reward.

    A response whose reward is missing (None, NaN or infinite) is left out and counted; it never becomes a 0. So are all
    responses to a prompt whose baseline is missing. Prompts that keep no response are dropped.
    """
    groups: list[ScoredGroup] = []
    missing = 0
    for n, (prompt, sampled, given) in enumerate(zip(prompts, responses, scores, strict=True)):
        baseline = baselines[n] if baselines is not None else None
        lost = baselines is not None and not known(baseline)
        kept = tuple(
            Scored(s, float(r), steps[n][k] if steps is not None else ())
            for k, (s, r) in enumerate(zip(sampled, given, strict=True))
            if r is not None and known(r) and not lost
        )
        missing += len(sampled) - len(kept)
        if kept:
            groups.append(ScoredGroup(tuple(prompt), kept, baseline))
    return groups, missing


def choose(groups: Sequence[ScoredGroup], samples: FilterFn, chance: torch.Generator) -> tuple[list[ScoredGroup], int]:
    """Apply a filter to each group. Returns the groups that keep something, and how many responses are left out."""
    chosen: list[ScoredGroup] = []
    unused = 0
    for group in groups:
        counts = samples(torch.tensor([r.score for r in group.responses]), chance).tolist()
        kept = tuple(replace(r, count=c) for r, c in zip(group.responses, counts, strict=True) if c > 0)
        unused += len(group.responses) - len(kept)
        if kept:
            chosen.append(replace(group, responses=kept))
    return chosen, unused


def assemble(
    policy: Policy,
    critic: ScoreModel | None,
    scored: Sequence[ScoredGroup],
    longest: int,
    temperature: float,
    token_budget: int,
    missing: int = 0,
    unused: int = 0,
    recompute: bool = False,
    note: bool = False,
) -> Rollout:
    """Add reference log-probabilities and the critic's values, one packed forward each.

    recompute: take the sampling policy's log-probabilities from a forward too, instead of those noted while sampling.
    note: keep the critic's forward for its first optimiser step.
    Raises ValueError when there is no response.
    """
    if not scored:
        raise ValueError(f"no response to learn from: {missing} rewards are missing, the filter left {unused} out")
    flat = [r for g in scored for r in g.responses]
    groups = tuple(Group(g.prompt, tuple(r.sampled.ids for r in g.responses)) for g in scored)
    shape = (len(flat), max(len(r.sampled.ids) for r in flat))
    old_logp, mask = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    step_scores = torch.full(shape, torch.nan) if any(r.steps for r in flat) else None
    for n, r in enumerate(flat):
        old_logp[n, : len(r.sampled.ids)] = torch.tensor(r.sampled.logp)
        mask[n, : len(r.sampled.ids)] = True
        if step_scores is not None:
            for end, value in r.steps or ((len(r.sampled.ids) - 1, r.score),):
                step_scores[n, end] = r.score if value is None else value
    sampled_logp, ref_logp = old_logp.clone(), torch.zeros(shape)
    values = None if critic is None else torch.zeros(shape)
    notes = Notes(critic, critic.decoder) if critic is not None and note and piecewise(critic.decoder) else None
    values_noted: list[Noted | None] = [None] * len(groups)
    device = next(policy.model.parameters()).device
    first = first_candidates(groups)
    batches = list(micro_batches(groups, token_budget))
    laid_out = [pack([groups[i] for i in batch], policy.backbone.pad_id, device) for batch in batches]
    widths = [slice(packed.mask.shape[1]) for packed in laid_out]
    places = [(candidate_rows(first, batch), width) for batch, width in zip(batches, widths, strict=True)]
    with policy.reference() as reference:
        for place, packed in zip(places, laid_out, strict=True):
            ref_logp[place] = token_logprobs(reference, packed, temperature)[0].cpu()
    with torch.no_grad():
        for batch, place, packed in zip(batches, places, laid_out, strict=True):
            if recompute:
                old_logp[place] = token_logprobs(policy.model, packed, temperature)[0].cpu()
            if critic is not None and values is not None:
                keep = notes is not None and notes.room_for(sum(groups[i].tokens for i in batch))
                with notes.taking(slice(None)) if notes and keep else nullcontext():
                    values[place] = critic.values(packed).cpu()
                if notes and keep:
                    for i, known in zip(batch, notes.last_pass([groups[i].tokens for i in batch]), strict=True):
                        values_noted[i] = known
    baselines = [g.baseline for g in scored for _ in g.responses]
    return Rollout(
        groups,
        torch.tensor([n for n, g in enumerate(scored) for _ in g.responses]),
        mask,
        old_logp,
        ref_logp,
        torch.tensor([r.score for r in flat]),
        torch.tensor([r.count for r in flat]),
        values,
        torch.tensor([float(b or 0.0) for b in baselines]) if None not in baselines else None,
        step_scores,
        longest,
        missing,
        unused,
        masked_mean((sampled_logp - old_logp).abs(), mask).item() if recompute else None,
        tuple(of_group([r.sampled.noted for r in g.responses], len(g.prompt)) for g in scored),
        tuple(values_noted),
    )


def known(score: float | None) -> bool:
    """Whether a score is there: a finite number, for with an infinite one a group has no mean."""
    return score is not None and math.isfinite(score)


def first_candidates(groups: Sequence[Group]) -> list[int]:
    """Number of the first candidate of each group, and after the last the count of all."""
    first = [0]
    for g in groups:
        first.append(first[-1] + len(g.candidates))
    return first


def candidate_rows(first: Sequence[int], batch: Sequence[int]) -> Tensor:
    """Numbers of the candidates of the groups `batch`, in the order in which `pack` numbers them."""
    return torch.cat([torch.arange(first[i], first[i + 1]) for i in batch])
