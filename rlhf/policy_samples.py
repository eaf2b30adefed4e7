"""The samples that an update learns from: scored, filtered, drawn again where the filter left too few, and those of
terms that sample for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rlhf.advantages import Signals, group_centered
from rlhf.answers import Answers
from rlhf.auxiliary import Likelihood
from rlhf.masked import last_token
from rlhf.packing import Group
from rlhf.recipes import Recipe
from rlhf.rewards import Scorer
from rlhf.rollout import ScoredGroup, choose, collect


@dataclass(frozen=True)
class Drawn:
    """Scored samples of the prompts that the filter kept. figures: how they came about.

    Among them is `reward_mean`, of all samples of the first draw that have a reward.
    """

    groups: list[ScoredGroup]
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
            earned = [r.score for g in found for r in g.responses]
            figures = rewards.figures | ({"reward_mean": sum(earned) / len(earned)} if earned else {})
        if len(groups) >= wanted:
            break
    if recipe.attempts > 1:
        figures = figures | {"attempts": float(attempt), "groups_short": float(max(0, wanted - len(groups)))}
    unused += sum(len(g.responses) for g in groups[wanted:])
    return Drawn(groups[:wanted], missing, unused, figures)


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
