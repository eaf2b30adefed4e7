"""The samples that an update learns from: scored, filtered, drawn again where the filter left too few, and those of
terms that sample for themselves.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rlhf.advantages import Signals, group_centered
from rlhf.answers import Answers
from rlhf.auxiliary import Likelihood
from rlhf.masked import last_token
from rlhf.packing import Group
from rlhf.recipes import Recipe
from rlhf.rewards import Scorer, Scores
from rlhf.rollout import ScoredGroup, choose, collect, known


@dataclass(frozen=True)
class Drawn:
    """Scored samples of the prompts that the filter kept. figures: how they came about.

    first: the rewards of the first draw, filtered or not; figures of rewards are about these.
    """

    groups: list[ScoredGroup]
    first: Scores
    missing: int
    unused: int
    figures: dict[str, float]


def draw(
    recipe: Recipe,
    scorer: Scorer,
    first: Answers,
    more: Callable[[int], Answers],
    greedy: Callable[[Answers], Answers],
    chance: torch.Generator,
) -> Drawn:
    """Score the answers and filter them; while the filter leaves fewer prompts than there were, sample others.

    more(attempt): answers to other prompts. greedy(answers): the greedy response to each prompt, for recipes that
    compare with it. After `recipe.attempts` draws it goes on with what there is.
    """
    groups: list[ScoredGroup] = []
    earned: Scores = ()
    figures: dict[str, float] = {}
    missing = unused = 0
    wanted = len(first.prompts)
    for attempt in range(1, recipe.attempts + 1):
        answers = first if attempt == 1 else more(attempt)
        rewards = recipe.reward(answers, scorer)
        baselines = (
            [row[0] for row in recipe.reward(greedy(answers), scorer).scores] if recipe.needs("greedy") else None
        )
        found, lost = collect(answers.prompt_ids, answers.sampled, rewards.scores, rewards.steps, baselines)
        kept, left_out = choose(found, recipe.samples, chance)
        groups, missing, unused = groups + kept, missing + lost, unused + left_out
        if attempt == 1:
            # What the policy earns, and not what the filter left of it.
            earned, figures = rewards.scores, rewards.figures | reward_figures(found)
        if len(groups) >= wanted:
            break
    if recipe.attempts > 1:
        figures = figures | {"attempts": float(attempt), "groups_short": float(max(0, wanted - len(groups)))}
    unused += sum(len(g.responses) for g in groups[wanted:])
    return Drawn(groups[:wanted], earned, missing, unused, figures)


def reward_figures(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Mean and std of all rewards, and the share of prompts whose responses all have one; nothing without a reward."""
    rows = [[r.score for r in g.responses] for g in groups]
    flat = [score for row in rows for score in row]
    if not flat:
        return {}
    return {
        "reward_mean": statistics.fmean(flat),
        "reward_std": statistics.stdev(flat) if len(flat) > 1 else 0.0,
        "zero_std_groups": sum(max(row) == min(row) for row in rows) / len(rows),
    }


def gold_of_best(rewards: Scores, golds: Sequence[Sequence[float | None]]) -> float | None:
    """Mean gold of the responses with the highest reward of their prompt, then over prompts; None where none is known.

    How good the choice of the reward is. Where gold is 1 for what is right, it is how often a majority vote is.
    """
    chosen = []
    for row, truths in zip(rewards, golds, strict=True):
        highest = max((r for r in row if r is not None and known(r)), default=None)
        told = [g for r, g in zip(row, truths, strict=True) if r == highest and r is not None and g is not None]
        chosen += [statistics.fmean(told)] if told else []
    return statistics.fmean(chosen) if chosen else None


def tempered_likelihood(recipe: Recipe, scorer: Scorer, answers: Answers, longest: int) -> Likelihood | None:
    """`α·E[log π(y)·1(A > 0)]` on answers sampled at a temperature of their own; None if none of them qualifies.

    The expectation is over all of these answers, aggregated as the surrogate is.
    """
    assert recipe.tempered is not None
    scored, _ = collect(answers.prompt_ids, answers.sampled, recipe.reward(answers, scorer).scores)
    if not scored:
        return None
    flat = [r for g in scored for r in g.responses]
    mask = torch.zeros(len(flat), max(len(r.sampled.ids) for r in flat), dtype=torch.bool)
    for n, r in enumerate(flat):
        mask[n, : len(r.sampled.ids)] = True
    scores = torch.tensor([r.score for r in flat])
    group = torch.tensor([n for n, g in enumerate(scored) for _ in g.responses])
    once = torch.ones(len(flat))
    better = (group_centered(Signals(scores[:, None] * last_token(mask), mask, group, once)).advantages > 0).any(1)
    if not better.any():
        return None
    weights = recipe.tempered.tempered_alpha * recipe.aggregation(mask, once, longest) * better[:, None]
    return _of_chosen(scored, better, weights)


def _of_chosen(scored: Sequence[ScoredGroup], better: torch.Tensor, weights: torch.Tensor) -> Likelihood:
    groups: list[Group] = []
    kept: list[torch.Tensor] = []
    n = 0
    for g in scored:
        rows = [k for k in range(len(g.responses)) if better[n + k]]
        if rows:
            groups.append(Group(g.prompt, tuple(g.responses[k].sampled.ids for k in rows)))
            longest = max(len(g.responses[k].sampled.ids) for k in rows)
            kept.append(weights[[n + k for k in rows], :longest])
        n += len(g.responses)
    return Likelihood("tempered", tuple(groups), tuple(kept))
