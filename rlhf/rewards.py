"""What a policy is rewarded for: the outcome, the steps on the way, or agreement with the majority.

Each is a function of the sampled answers and of a `Scorer`, which knows where scores come from (the reward model or a
rule). A score that is missing stays None: it is counted later, and never becomes a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rlhf.answers import Answers
from rlhf.majority import EXTRACTORS, vote
from rlhf.step_splitting import SPLITTERS, Splitter

Scores = Sequence[Sequence[float | None]]  # by prompt, by response
Steps = tuple[tuple[int, float | None], ...]  # (index of the step's last token, its reward) of one response


@dataclass(frozen=True)
class Scorer:
    """Where scores come from.

    whole(answers): of each response. steps(answers, ends): of each step of each response, given the indices of the
    steps' last tokens. ends(answers, split): those indices.
    """

    whole: Callable[[Answers], Scores]
    ends: Callable[[Answers, Splitter], Sequence[Sequence[Sequence[int]]]]
    steps: Callable[[Answers, Sequence[Sequence[Sequence[int]]]], Sequence[Sequence[Sequence[float | None]]]]


@dataclass(frozen=True)
class Rewards:
    """scores: the outcome of each response. steps: its step rewards, or None. figures: what is worth logging."""

    scores: Scores
    steps: Sequence[Sequence[Steps]] | None = None
    figures: dict[str, float] = field(default_factory=dict)


RewardFn = Callable[[Answers, Scorer], Rewards]


def outcome(answers: Answers, scorer: Scorer) -> Rewards:
    """The score of the whole response, at its last token."""
    return Rewards(scorer.whole(answers))


def step_rewards(answers: Answers, scorer: Scorer, *, split: str = "lines") -> Rewards:
    """A score for each step, at its last token (process supervision). The outcome is their sum.

    split: "lines", "sentences" or "paragraphs". A response with a step that has no score has none itself.
    """
    ends = scorer.ends(answers, SPLITTERS[split])
    values = scorer.steps(answers, ends)
    steps = [
        [tuple(zip(e, v, strict=True)) for e, v in zip(ends_row, values_row, strict=True)]
        for ends_row, values_row in zip(ends, values, strict=True)
    ]
    scores = [[total([v for _, v in response]) for response in row] for row in steps]
    counts = [len(response) for row in steps for response in row]
    return Rewards(scores, steps, {"steps_per_response": sum(counts) / max(1, len(counts))})


def majority_vote(answers: Answers, scorer: Scorer, *, extract: str = "last_number") -> Rewards:
    """1 for each response whose answer is the one that most responses to the prompt give, else 0 (TTRL).

    Needs neither labels nor truth. extract: "last_number", "boxed", "choice" or "last_line". Where no response to a
    prompt has an answer, there is no vote and no reward. See `rlhf.majority`.
    """
    scores: list[list[float | None]] = []
    shares: list[float] = []
    for row in answers.texts:
        found = [EXTRACTORS[extract](text) for text in row]
        winner, share = vote(found)
        scores.append([None if winner is None else float(a == winner) for a in found])
        shares.append(share)
    return Rewards(scores, None, {"majority_share": sum(shares) / max(1, len(shares))})


def total(values: Sequence[float | None]) -> float | None:
    """The sum, or None if one of them is missing."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return sum(known) if len(known) == len(values) else None
