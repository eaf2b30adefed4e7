"""The forms in which a judge can be asked about a slate, each with what its replies amount to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from judges.answer import Answer
from judges.orders import combine, combine_pairs
from judges.questions import Question, pair_questions, questions, score_questions
from judges.reply import Reply, replies_in
from judges.rubric import Rubric
from judges.scores import combine_scores
from labeling.records import JudgeCall, Slate


@dataclass(frozen=True)
class Form:
    """questions: all about a slate (rubric, slate, whether pictures follow, whether the reply is JSON).

    combine: the slate, all replies to them, and the seconds that they took, to one answer.
    """

    questions: Callable[[Rubric, Slate, bool, bool], tuple[Question, ...]]
    combine: Callable[[Slate, Sequence[Reply], float], Answer]

    def answer(self, slate: Slate, calls: Sequence[JudgeCall]) -> Answer:
        """The answer that the calls about one slate amount to; one that failed makes it that failure."""
        for call in calls:
            if call.outcome == "endpoint_failure":
                return Answer("endpoint_failure", reason=call.reply)
        replies = [reply for call in calls for reply in replies_in(call.reply)]
        return self.combine(slate, replies, sum(call.seconds for call in calls))


# All candidates at once, each in each place; each pair of them, in both orders; and each alone, for a score.
LISTED = Form(questions, lambda slate, replies, seconds: combine(replies, seconds))
PAIRED = Form(pair_questions, lambda slate, replies, seconds: combine_pairs(replies, seconds))
SCORED = Form(score_questions, combine_scores)
