"""The judge that needs no model: it ranks responses by a rubric's criteria."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from judges.answer import Answer, Clips
from judges.orders import weak_order
from judges.rubric import Rubric, score
from labeling.records import Annotator, JudgeCall, Slate


@dataclass(frozen=True)
class CriteriaJudge:
    """Ranks by `score`; candidates closer than the rubric's tie_margin are tied."""

    annotator: Annotator
    rubric: Rubric

    @property
    def clips(self) -> Clips:
        """The words of a description say nothing about the agent."""
        return "cannot"

    def check(self) -> None:
        """Nothing can be down here."""

    def answer(
        self,
        slates: Sequence[Slate],
        known: Mapping[str, JudgeCall],
        record: Callable[[JudgeCall], None],
        emit: Callable[[Slate, Answer], None],
    ) -> None:
        """Answer every slate; it makes no calls."""
        for slate in slates:
            emit(slate, self.compare(slate))

    def compare(self, slate: Slate) -> Answer:
        """Rank one slate. For a pair also P(0 better) = σ((s0 - s1) / temperature), ½ where it is tied."""
        scores = [score(self.rubric, slate.prompt, candidate) for candidate in slate.candidates]
        ranks = weak_order([-s for s in scores], self.rubric.tie_margin)
        if len(ranks) > 2:
            return Answer("ranked", ranks)
        lead = 0.0 if ranks == (1, 1) else (scores[0] - scores[1]) / self.rubric.temperature
        return Answer("ranked", ranks, (1 + math.tanh(lead / 2)) / 2)  # σ, without overflow
