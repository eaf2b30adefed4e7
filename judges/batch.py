"""A judge labels many slates: which ones are asked, and what is written down in which order.

A call is on disk before the label made from it, and a label's key follows from its annotator, its slate and the
failure that it replaces. So it can be killed anywhere and run again: nothing is lost, doubled or paid for twice.
Slates are taken from wherever they come page by page; only those under way are held.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from judges.answer import Answer, Judge, Waiting
from judges.budget import BudgetReached
from judges.ledger import Ledger
from judges.submissions import RepliesAwaited
from judges.verdict import FINAL_LABELS
from labeling.records import Annotator, JudgeCall, Label, Slate, content_id

PAGE = 256
T = TypeVar("T")


@dataclass
class Judged:
    """What a judge did: labels by type, and why it stopped before the end, if it did."""

    outcomes: Counter[str] = field(default_factory=Counter)
    stopped: str = ""


def waiting(slates: Iterable[Slate], annotator: str, ledger: Ledger) -> Iterator[Waiting]:
    """Those of the slates that a judge has yet to answer: new ones, and those where it failed."""
    for page in pages(slates):
        ids = [slate.id for slate in page]
        standing, calls = ledger.labels_on(annotator, ids), defaultdict[str, dict[str, JudgeCall]](dict)
        for key, call in ledger.judge_calls(annotator, ids).items():
            calls[call.slate_id][key] = call
        for slate, id in zip(page, ids, strict=True):
            label = standing.get(id)
            if label is None or label.outcome not in FINAL_LABELS:
                yield Waiting(slate, label, calls[id])


def pages(items: Iterable[T]) -> Iterator[list[T]]:
    """The items, so many at a time."""
    stream = iter(items)
    while page := list(islice(stream, PAGE)):
        yield page


def label_slates(
    judge: Judge,
    slates: Iterable[Slate],
    ledger: Ledger,
    on_label: Callable[[Label], None] = lambda label: None,
    on_wait: Callable[[str], None] = lambda holder: None,
) -> Judged:
    """Let a judge label, once no other process does, those of the slates that wait for it. See `label_alone`.

    `on_wait` hears whom it has to wait for.
    """
    with ledger.judging_alone(judge.annotator.id, on_wait):
        return label_alone(judge, slates, ledger, on_label)


def label_alone(
    judge: Judge,
    slates: Iterable[Slate],
    ledger: Ledger,
    on_label: Callable[[Label], None] = lambda label: None,
) -> Judged:
    """Let a judge as whom this process alone labels label those of the slates that wait for it.

    The ledger knows the slates.

    `on_label` hears of each label once it is on disk. A cap that is reached, and replies that are not there yet, end
    it early; a revoked judge asks nothing. Raises UserError when the judge's endpoint stops answering,
    KeyboardInterrupt after Ctrl-C. In all these cases what was finished is kept, and the same call again goes on from
    there.
    """
    judged = Judged()

    def keep(waiting: Waiting, answer: Answer) -> Label:
        label = make_label(judge.annotator, waiting.slate, answer, waiting.failure)
        ledger.add_labels([label])
        return label

    def tell(label: Label) -> None:
        judged.outcomes[outcome_of(label)] += 1
        on_label(label)

    revoked = ledger.revoked().get(judge.annotator.id)
    if revoked is not None:
        judged.stopped = f"{judge.annotator.id} is revoked ({revoked}), so its labels would count for nothing"
        return judged
    ledger.add_annotator(judge.annotator)
    try:
        judge.answer(waiting(slates, judge.annotator.id, ledger), ledger, keep, tell)
    except (BudgetReached, RepliesAwaited) as reason:
        judged.stopped = str(reason)
    return judged


def outcome_of(label: Label) -> str:
    """The type under which a judge's label is counted: that of a call, where an order of equals is a tie."""
    return "tie" if label.ranks and len(set(label.ranks)) == 1 else "label" if label.ranks else label.outcome


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
