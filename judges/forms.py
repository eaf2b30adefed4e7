"""The forms in which a judge can be asked about a slate, each with what its replies amount to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from judges.answer import Answer
from judges.orders import Reply, combine, combine_pairs
from judges.questions import Question, pair_questions, questions
from judges.rubric import Rubric
from labeling.records import JudgeCall, Slate


@dataclass(frozen=True)
class Form:
    """questions: all about a slate (rubric, slate, whether pictures follow, whether the reply is JSON).

    combine: all replies to them, and the seconds that they took, to one answer.
    """

    questions: Callable[[Rubric, Slate, bool, bool], tuple[Question, ...]]
    combine: Callable[[Sequence[Reply], float], Answer]

    def answer(self, calls: Sequence[JudgeCall]) -> Answer:
        """The answer that the calls about one slate amount to; one that failed makes it that failure."""
        for call in calls:
            if call.outcome == "endpoint_failure":
                return Answer("endpoint_failure", reason=call.reply)
        return self.combine([Reply.from_json(call.reply) for call in calls], sum(call.seconds for call in calls))


LISTED = Form(questions, combine)  # all candidates at once, in both orders
PAIRED = Form(pair_questions, combine_pairs)  # each pair of them, in both orders
