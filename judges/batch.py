"""A judge labels many slates: which ones are asked, and what is written down in which order.

A call is on disk before the label made from it, and a label's key follows from its annotator, its slate and the
failure that it replaces. So it can be killed anywhere and run again: nothing is lost, doubled or paid for twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from judges.answer import Answer, Judge
from judges.verdict import ANSWERS
from labeling.records import Annotator, JudgeCall, Label, Slate, content_id


class Ledger(Protocol):
    """Where calls and labels are kept; the project's store is one. What a method returns from is on disk."""

    def add_annotator(self, annotator: Annotator) -> None:
        """Make an annotator known, or bring its weight up to date."""

    def labels(self, *, annotator: str) -> list[Label]:
        """The labels of an annotator that stand."""

    def judge_calls(self, annotator: str) -> dict[str, JudgeCall]:
        """All calls that an annotator has made, by key."""

    def add_judge_call(self, call: JudgeCall) -> None:
        """Keep a call; the retry of a failed one replaces it."""

    def add_labels(self, labels: Iterable[Label]) -> int:
        """Keep labels; one that is there already changes nothing."""


def waiting(slates: Iterable[Slate], standing: Iterable[Label]) -> list[Slate]:
    """The slates that a judge has yet to answer, given its standing labels: new ones, and those where it failed."""
    answered = {label.slate_id for label in standing if label.outcome in ANSWERS}
    return [slate for slate in slates if slate.id not in answered]


def label_slates(
    judge: Judge,
    slates: Iterable[Slate],
    ledger: Ledger,
    on_label: Callable[[Label], None] = lambda label: None,
) -> Counter[str]:
    """Let a judge label those of the slates that wait for it; count the outcomes. The ledger knows the slates.

    `on_label` hears of each label once it is on disk. Raises UserError when the judge's endpoint stops
    answering, KeyboardInterrupt after Ctrl-C: in both cases what was finished is kept, and the same call again
    goes on from there.
    """
    ledger.add_annotator(judge.annotator)
    standing = {label.slate_id: label for label in ledger.labels(annotator=judge.annotator.id)}
    outcomes: Counter[str] = Counter()

    def emit(slate: Slate, answer: Answer) -> None:
        label = make_label(judge.annotator, slate, answer, standing.get(slate.id))
        ledger.add_labels([label])
        outcomes[label.outcome] += 1
        on_label(label)

    todo = waiting(slates, standing.values())
    if todo:
        judge.answer(todo, ledger.judge_calls(judge.annotator.id), ledger.add_judge_call, emit)
    return outcomes


def make_label(annotator: Annotator, slate: Slate, answer: Answer, failure: Label | None) -> Label:
    """The label that says `answer`, in place of the standing `failure` if there is one."""
    supersedes = failure.client_key if failure else None
    return Label(
        slate_id=slate.id,
        annotator=annotator.id,
        outcome=answer.outcome,
        client_key=content_id("judged", annotator.id, slate.id, supersedes),
        ranks=answer.ranks,
        probability=answer.probability,
        seconds=answer.seconds,
        reason=answer.reason,
        supersedes=supersedes,
    )
