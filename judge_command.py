"""The command `prefloop judge`: judges label what waits for them, within their budgets, and are measured."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labeling.records import Label, Spending, UserError
from shipped import DATA, shipped

if TYPE_CHECKING:
    from judges.answer import Judge
    from judges.budget import Budget
    from judges.endpoint_judge import EndpointJudge
    from judges.estimate import Estimate
    from judges.local_model import ReplyModel
    from labeling.intervals import Interval
    from labeling.judge_quality import JudgeQuality
    from labeling.store import Store

# By the kind of a failure. Each is asked again by the same command.
CURES = {
    "endpoint_failure": "mend that and run the same command again, it asks only what is missing",
    "truncated": "raise max_tokens in the judge's file",
    "parse_failure": "name a model that keeps to the rubric's form, or have it reason less",
    "refused": "word the rubric otherwise, or name another model",
    "injected": "let people answer these: --route",
}
SPENDING_SECONDS = 0.5  # how often the ledger is asked what was spent so far


@dataclass
class Tally:
    """How a run of a judge is going. reasons: of labels without a verdict, by outcome and what was said."""

    total: int
    started: float = field(default_factory=time.monotonic)
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)

    def words(self, cost: float, now: float) -> str:
        """Labels a second, dollars of this run so far and in the end, and what failed by type."""
        done = self.outcomes.total()
        rate = done / max(now - self.started, 1e-9)
        parts = [f"{rate:.1f} labels/s"]
        if cost and done:
            parts.append(f"${cost:.4f} of about ${cost / done * self.total:.4f}")
        failures = counted({kind: n for kind, n in self.outcomes.items() if kind not in ("label", "tie")})
        return " · ".join([*parts, *([failures] if failures else [])])

    def add(self, label: Label) -> None:
        """Count a label."""
        from judges.batch import outcome_of

        kind = outcome_of(label)
        self.outcomes[kind] += 1
        if label.ranks is None:
            self.reasons[kind, label.reason] += 1

    def failures(self) -> Iterator[str]:
        """For each kind of failure what was most often said of it, and what helps."""
        told: set[str] = set()
        for (kind, reason), _ in self.reasons.most_common():
            if kind in CURES and kind not in told:
                told.add(kind)
                yield f"{kind}{f' ({reason})' if reason else ''}: {CURES[kind]}"

    def useless(self, who: str) -> list[str]:
        """One line where slates were asked about and all failed: what was said most often, and what helps."""
        from judges.verdict import FINAL_CALLS

        if not self.outcomes or self.outcomes.keys() & FINAL_CALLS:
            return []
        all_of_them = f"all {n:,} slates" if (n := self.outcomes.total()) > 1 else "the only slate"
        return [f"{who}: {all_of_them} failed: {next(self.failures())}"]


def counted(counts: Mapping[str, int]) -> str:
    """Counts by type in words, most frequent first."""
    return ", ".join(f"{n:,} {kind}" for kind, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class Asking:
    """What people are to answer of what a judge ranked. audit: a random share; route: so many doubtful slates."""

    audit: float = 0.0
    route: int = 0


@dataclass(frozen=True)
class EndpointOptions:
    """How a judge behind an endpoint is asked this time; None = as its file says.

    money, tokens, calls: caps for all judges of the project together, in place of those of their files.
    """

    batch_api: bool = False
    batch_files: Path | None = None
    money: float | None = None
    tokens: int | None = None
    calls: int | None = None

    def given(self) -> dict[str, Any]:
        """The options that say something, by name."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value is not False}


def judge(
    project: Path,
    names: Sequence[str],
    limit: int | None,
    dry_run: bool,
    options: EndpointOptions,
    asking: Asking,
) -> None:
    """Let judges, one after the other, label the slates that wait for them, at most `limit` each.

    dry_run: only say what that would take. asking: what people are to answer too. Raises UserError, in the end also
    where a judge was asked and every slate failed.
    """
    from labeling.store import Store

    store = Store(project)
    judges = [with_options(open_judge(name, store), options) for name in names]
    if dry_run:
        for line in estimated(judges, store, limit):
            print(line)
        return
    useless: list[str] = []
    for each in judges:
        with store.judging_alone(each.annotator.id, waiting_for(each)):
            useless += run_judge(each, store, limit).useless(each.annotator.id)
    for each in judges:
        ask_people(each.annotator.id, store, asking)
    for line in measured(judges, store):
        print(line)
    if useless:
        raise UserError("; ".join(useless))


def open_judge(name: str, store: Store) -> Judge:
    """The judge of a file, or of a shipped one by its name, with all that it may need. Raises UserError."""
    from judges.config import load_judge
    from rlhf.control.extra import pictures

    def open_model(name: str) -> ReplyModel:
        from rlhf.reply_probabilities import open_reply_model  # it loads torch

        return open_reply_model(name)

    return load_judge(shipped("judges", name), DATA, pictures(store.segments), open_model)


def waiting_for(judge: Judge) -> Callable[[str], None]:
    """What says that another process labels as this judge, and how to stop waiting for it."""

    def told(holder: str) -> None:
        print(
            f"{judge.annotator.id}: waits, as {holder} labels as this judge: it goes on when that ends; Ctrl-C stops "
            "the waiting and loses nothing",
            flush=True,
        )

    return told


def run_judge(judge: Judge, store: Store, limit: int | None) -> Tally:
    """Let a judge, as whom this process alone labels, label what waits for it, and print what came of it."""
    from judges.batch import label_alone
    from judges.verdict import FINAL_LABELS

    who = judge.annotator.id
    waiting = store.count_waiting(who, FINAL_LABELS)
    total = waiting if limit is None else min(waiting, limit)
    slates = islice(store.waiting_slates(who, FINAL_LABELS), total)
    before, tally = store.judge_spending(who), Tally(total)
    if total:
        judge = judge.checked(store)
        for remark in judge.remarks:
            print(f"{who}: {remark}")
    stopped = ""
    try:
        with shown(tally, who, store, before.cost) as on_label:
            stopped = label_alone(judge, slates, store, on_label).stopped
    except KeyboardInterrupt:
        stopped = "stopped; every finished label is kept"
        raise
    finally:
        spent = store.judge_spending(who)
        nothing = "no label" if stopped else "nothing left to label"
        print(f"{who}: {counted(tally.outcomes) or nothing}{bill(judge, before, spent)}")
        for line in tally.failures():
            print(f"{who}: {line}")
        if stopped:
            left = store.count_waiting(who, FINAL_LABELS)
            print(f"{stopped}: {left:,} slates are left, and the same command goes on from here")
    return tally


def ask_people(judge: str, store: Store, asking: Asking) -> None:
    """Have people answer a random share of what a judge ranked, and its most doubtful slates."""
    from judges.asking_people import audit, route

    if asking.audit:
        store.request_people(list(audit(judge, asking.audit, store)))
    if asking.route:
        store.request_people(route(judge, asking.route, store))


def measured(judges: Sequence[Judge], store: Store) -> Iterator[str]:
    """How far the judges can be trusted, each by all of its own books, and together, in words."""
    from judges.calibration import calibrate, truth_of
    from judges.canary_rides import ridden
    from judges.endpoint_judge import EndpointJudge
    from judges.local_model import LocalJudge
    from judges.panel import measure_panel
    from labeling.agreement import answers_of
    from labeling.quality import known_answers, reliabilities

    annotators, gold = store.annotators(), store.gold()
    people = [a.id for a in annotators.values() if a.kind == "human"]
    said = [label for person in people for label in store.labels(annotator=person)]
    truth = truth_of(answers_of(said), known_answers(gold, (label for label in said if label.purpose == "adjudicate")))
    names = [judge.annotator.id for judge in judges]
    own = [label for who in names for label in store.labels_on(who, list({pair.slate_id for pair in truth})).values()]
    audits = store.audits()
    found = reliabilities([*said, *own], annotators, gold, audits)
    against_people = {q.judge: q for q in store.judge_quality()}
    for judge, who in zip(judges, names, strict=True):
        fit = against_people.get(who)
        checked = {
            pair: side for pair, side in truth.items() if not (fit and fit.audit) or pair.slate_id in audits[who]
        }
        for line in calibrate(who, store, checked).lines():
            yield f"{who}: {line}"
        if fit:
            yield f"{who}: {beside_people(fit)}"
        for line in asked_of_people(who, store):
            yield f"{who}: {line}"
        if (r := found.get(who)) and r.checked:
            yield f"{who}: right in {r.accuracy:.0%} [{r.low:.0%}, {r.high:.0%}], fitted to {r.checked:,} answers"
        if isinstance(judge, EndpointJudge | LocalJudge) and (success := ridden(judge, store)).canaries:
            yield f"{who}: {success.words()}"
    panel = measure_panel(answers_of(own), names, truth)
    if not isnan(panel.votes):
        yield (
            f"the {panel.judges} judges are worth {panel.votes:.1f} independent votes "
            f"(their errors correlate by {panel.correlation:.2f} on {panel.pairs:,} pairs)"
        )


def beside_people(fit: JudgeQuality) -> str:
    """How well a judge's answers and probabilities fit people's, in words."""

    def shown(i: Interval) -> str:
        return f"{i.mean:.2f} [{i.low:.2f}, {i.high:.2f}]"

    where = "slates drawn for people at random" if fit.audit else "slates that people happened to label, no sample"
    errors = ", ".join(f"{shown(error)} {method}" for method, error in fit.error.items())
    figures = f"κ {shown(fit.kappa)} with people, calibration error {errors}"
    return f"{figures}, on {fit.slates:,} {where}; training gets: {fit.in_use}"


def asked_of_people(judge: str, store: Store) -> Iterator[str]:
    """What people are to answer of a judge's slates, why, and how much of it they did, in words."""
    from labeling.stored_requests import REASONS

    for count in store.request_counts():
        if count.judge == judge:
            share = f"{count.asked:,} of {count.ranked:,} slates that it ranked ({count.share:.1%})"
            yield f"people are to answer {share}: {REASONS[count.reason]}; {count.answered:,} are answered"


def with_options(judge: Judge, options: EndpointOptions) -> Judge:
    """The judge as these options want it. Raises UserError for one that runs here and costs nothing."""
    from judges.batch_api import BatchApi
    from judges.batch_files import BatchFiles
    from judges.budget import Budget, Caps
    from judges.endpoint_judge import EndpointJudge

    given = options.given()
    if not given:
        return judge
    if not isinstance(judge, EndpointJudge):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UserError(f"{judge.annotator.id} runs here and costs nothing: leave out {names}")
    caps = {name: cap for name, cap in given.items() if name in ("money", "tokens", "calls")}
    judge = judge.within(Caps(replace(judge.caps.own, **dict.fromkeys(caps)), Budget(**caps)) if caps else judge.caps)
    if options.batch_api:
        return replace(judge, batch=BatchApi(judge.endpoint, judge.file))
    if options.batch_files:
        return replace(judge, batch=BatchFiles(options.batch_files, judge.endpoint.model))
    return judge


def estimated(judges: Sequence[Judge], store: Store, limit: int | None) -> Iterator[str]:
    """What each judge's labels will take, and what all will where a cap holds for them together, in words."""
    from judges.batch import waiting
    from judges.endpoint_judge import EndpointJudge
    from judges.estimate import counted, estimate
    from judges.verdict import FINAL_LABELS

    more, together = Spending(), None
    for judge in judges:
        who = judge.annotator.id
        slates = islice(store.waiting_slates(who, FINAL_LABELS), limit)
        if isinstance(judge, EndpointJudge):
            e = estimate(judge, waiting(slates, who, store), store.usual_call(who), store)
            said = left(judge.caps.own, store.judge_spending(who), e.spending)
            yield f"{who}: {in_words(e, judge)}{said and f'; {said}'}"
            more, together = more + e.spending, judge.caps.together
        else:
            yield f"{who}: {counted(judge, slates):,} slates, judged here, no cost"
    if together and (said := left(together, store.total_spending(), more)):
        yield f"all judges of the project together: {said}"


def left(budget: Budget, spent: Spending, more: Spending) -> str:
    """How much of a budget's caps is used, and whether they leave room for more, in words; nothing without caps."""
    used = budget.used(spent)
    ends = ", and the caps end it before it is done" if budget.below(spent + more) else ""
    return f"used so far: {used}{ends}" if used else ""


def in_words(e: Estimate, judge: EndpointJudge) -> str:
    """What a judge's labels will take, in words."""
    dated = f" by prices of {judge.price_date}" if judge.price_date else ""
    cost = "at an unknown price" if e.cost is None else f"about ${e.cost:.4f}{dated}"
    basis = "by its earlier calls" if e.measured else "by the bytes of the questions, full replies and 1 s a call"
    time = judge.batch.takes if judge.batch else f"about {e.seconds:,.0f} s"
    return (
        f"{e.slates:,} slates, {e.calls:,} calls ({e.canary_calls:,} about canaries), "
        f"about {e.prompt_tokens:,.0f} + {e.completion_tokens:,.0f} tokens, {cost}, {time} ({basis})"
    )


def bill(judge: Judge, before: Spending, after: Spending) -> str:
    """What was spent between two moments, in words; nothing where nothing was asked."""
    calls = after.calls - before.calls
    if not calls:
        return ""
    from judges.endpoint_judge import EndpointJudge

    unknown = isinstance(judge, EndpointJudge) and not judge.priced
    cost = "at an unknown price" if unknown else f"${after.cost - before.cost:.4f}"
    return f"; {calls:,} calls, {after.tokens - before.tokens:,} tokens, {cost}"


@contextmanager
def shown(tally: Tally, who: str, store: Store, cost: float) -> Iterator[Callable[[Label], None]]:
    """Show how a run goes while it goes, and under it what sways the judge; what is given is to hear of each label.

    cost: what the judge had spent before.
    """
    from rich.console import RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    from judges.live import Live

    live = Live(who, store)

    class Lines(Progress):
        def get_renderables(self) -> Iterable[RenderableType]:
            yield from super().get_renderables()
            if live.words:
                yield Text(live.words)

    columns = (
        TextColumn(who, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Lines(*columns) as progress:
        task, looked, spent = progress.add_task("", total=tally.total), 0.0, 0.0

        def on_label(label: Label) -> None:
            nonlocal looked, spent
            tally.add(label)
            now = time.monotonic()
            if now - looked > SPENDING_SECONDS:
                looked, spent = now, store.judge_spending(who).cost - cost
            live.hear(label, now)
            progress.update(task, advance=1, description=tally.words(spent, now))

        yield on_label
