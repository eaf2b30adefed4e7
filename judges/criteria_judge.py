"""The judge that needs no model: it ranks responses by a rubric's criteria."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from judges.answer import Answer, Clips, Waiting
from judges.ledger import Ledger
from judges.orders import weak_order
from judges.rubric import Rubric, check_countable, score
from labeling.records import Annotator, Label, Slate

PAGE = 64


@dataclass(frozen=True)
class CriteriaJudge:
    """Ranks by `score`; candidates closer than the rubric's tie_margin are tied."""

    annotator: Annotator
    rubric: Rubric

    @property
    def clips(self) -> Clips:
        """The words of a description say nothing about the agent."""
        return "cannot"

    @property
    def remarks(self) -> tuple[str, ...]:
        """There is nothing to remark."""
        return ()

    def checked(self, ledger: Ledger) -> CriteriaJudge:
        """Nothing can be down here."""
        return self

    def answer(
        self,
        slates: Iterable[Waiting],
        ledger: Ledger,
        keep: Callable[[Waiting, Answer], Label],
        tell: Callable[[Label], None],
    ) -> None:
        """Answer every slate, with one commit for a page of them; it makes no calls."""
        stream = iter(slates)
        while page := list(islice(stream, PAGE)):
            answers = [(waiting, self.compare(waiting.slate)) for waiting in page]
            with ledger.writing():
                labels = [keep(waiting, answer) for waiting, answer in answers]
            for label in labels:
                tell(label)

    def check(self, slate: Slate) -> None:
        """Raise UserError for a slate that cannot be compared."""
        for candidate in slate.candidates:
            check_countable(self.rubric, candidate)

    def compare(self, slate: Slate) -> Answer:
        """Rank one slate. For a pair also P(0 better) = σ((s0 - s1) / temperature), ½ where it is tied."""
        scores = [score(self.rubric, slate.prompt, candidate) for candidate in slate.candidates]
        ranks = weak_order([-s for s in scores], self.rubric.tie_margin)
        if len(ranks) > 2:
            return Answer("ranked", ranks)
        lead = 0.0 if ranks == (1, 1) else (scores[0] - scores[1]) / self.rubric.temperature
        return Answer("ranked", ranks, (1 + math.tanh(lead / 2)) / 2)  # σ, without overflow
