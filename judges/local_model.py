"""The judge that is a language model in this process: read, not sampled from.

Each pair of a slate's candidates is asked about in both orders, in the words in which endpoints are asked. What counts
is how probable each possible verdict v is as the whole reply to the question x:

    P(v | x) = π(v | x) / Σ_v' π(v' | x)    over [[A]], [[B]], [[TIE]] and [[ABSTAIN]].

The most probable one is the reply; the chances of the first three make the label's probability. By a rubric with a
scale each candidate is asked about alone, and the verdicts are the scores. So no reply fails to parse, and nothing is
drawn. The model has no room to reason first: a rubric that asks for reasons is asked without.

A call costs nothing, so it is written down when it was answered: whatever is killed meanwhile was never asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from typing import Protocol

from judges.answer import Answer, Clips, Waiting
from judges.canaries import DEFAULT_CANARIES, CanaryRules, draw_canaries
from judges.canary_rides import require_sound
from judges.forms import PAIRED, SCORED, Form
from judges.injection import favoured_attempt
from judges.ledger import Ledger
from judges.questions import Question
from judges.reply import Reply, kept, scored
from judges.rubric import Rubric
from judges.verdict import ABSTAIN, FINAL_CALLS, TIE
from labeling.records import Annotator, JudgeCall, Label, Message, UserError, content_id

PAGE = 32  # slates whose questions share their forwards
VERDICTS_OF_PAIRS = ("A", "B", TIE, ABSTAIN)


class ReplyModel(Protocol):
    """A language model that says how probable replies are; `rlhf.reply_probabilities` has one."""

    @property
    def context(self) -> int:
        """The most tokens of a question and its longest reply together."""

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of a conversation, up to where the model replies."""

    def longest(self, replies: Sequence[str]) -> int:
        """Tokens of the longest of these replies."""

    def logprobs(
        self, questions: Sequence[tuple[int, ...]], replies: Sequence[str]
    ) -> Iterator[Mapping[int, list[float]]]:
        """Log-probability of each reply to each question, by the question's index, some questions at a time."""


@dataclass(frozen=True)
class LocalJudge:
    """A model in this process, with a rubric. file: its file, for messages. open_model: loads the model by name."""

    annotator: Annotator
    rubric: Rubric
    model: str
    file: str
    open_model: Callable[[str], ReplyModel]
    canary_rules: CanaryRules = DEFAULT_CANARIES

    @property
    def clips(self) -> Clips:
        """A description is text like any other."""
        return "reads"

    @property
    def remarks(self) -> tuple[str, ...]:
        """Whether the rubric asks for what cannot be had here."""
        return ("its verdicts are read at once: the rubric's reasoning is left out",) if self.rubric.reasoning else ()

    @property
    def form(self) -> Form:
        """How it is asked."""
        return SCORED if self.rubric.scale else PAIRED

    @cached_property
    def verdicts(self) -> tuple[str, ...]:
        """All that it can say about a question."""
        if self.rubric.scale is None:
            return VERDICTS_OF_PAIRS
        low, high = self.rubric.scale
        return (*map(str, range(low, high + 1)), ABSTAIN)

    @cached_property
    def replies(self) -> ReplyModel:
        """The model, loaded when it is first needed. Raises UserError when it cannot be."""
        return self.open_model(self.model)

    def checked(self, ledger: Ledger) -> LocalJudge:
        """Load the model and put words to it. Raises UserError when it cannot be loaded, or cannot be asked."""
        self.replies.encode((Message("system", "?"), Message("user", "?")))
        return self

    def answer(
        self,
        slates: Iterable[Waiting],
        ledger: Ledger,
        keep: Callable[[Waiting, Answer], Label],
        tell: Callable[[Label], None],
    ) -> None:
        """Answer every slate, a page of them after the other. See `judges.answer.Judge`.

        Raises UserError when too many attacks on it succeed.
        """
        stream = iter(slates)
        page = list(islice(stream, PAGE))
        if page and not any(candidate.clip for candidate in page[0].slate.candidates):
            self._ride(ledger)
        while page:
            calls = self._ask(page, ledger)
            with ledger.writing():
                labels = [keep(w, self.form.answer(w.slate, made)) for w, made in zip(page, calls, strict=True)]
            for label in labels:
                tell(label)
            page = list(islice(stream, PAGE))

    def questions(self, waiting: Waiting) -> Iterator[tuple[str, Question]]:
        """All questions about a slate by the keys of their calls, which a candidate alone has in every slate."""
        rubric = replace(self.rubric, reasoning=False)
        for question in self.form.questions(rubric, waiting.slate, False, False):
            shown = [[m.role, m.content] for m in question.messages]
            asked = [self.rubric.fingerprint, self.model, self.verdicts, shown]
            within = [waiting.slate.id, question.order] if question.scale is None else []
            yield content_id("call", self.annotator.id, *within, asked), question

    def _ride(self, ledger: Ledger) -> None:
        """Ask the canaries, those that were answered before excepted."""
        canaries = draw_canaries(0, self.canary_rules.each)
        known = ledger.judge_calls(self.annotator.id, [canary.slate.id for canary in canaries])
        calls = self._ask([Waiting(canary.slate, None, known) for canary in canaries], ledger)
        require_sound(self, zip(canaries, calls, strict=True))

    def _ask(self, page: Sequence[Waiting], ledger: Ledger) -> list[list[JudgeCall]]:
        """The calls about each slate; those that are not known yet are made, and kept forward by forward."""
        asked = [list(self.questions(waiting)) for waiting in page]
        shared = [key for key, question in chain.from_iterable(asked) if question.scale is not None]
        calls = {key: call for waiting in page for key, call in waiting.known.items()} | ledger.calls_by_key(shared)
        new = {
            key: q for key, q in chain.from_iterable(asked) if key not in calls or calls[key].outcome not in FINAL_CALLS
        }
        for made in self._made(new, calls):
            with ledger.writing():
                for call in made:
                    ledger.note_call(call)
            calls |= {call.key: call for call in made}
        return [[calls[key] for key, _ in questions] for questions in asked]

    def _made(self, new: Mapping[str, Question], before: Mapping[str, JudgeCall]) -> Iterator[list[JudgeCall]]:
        """Calls with what came of them, those of one forward together."""
        model, who = self.replies, self.annotator.id
        replies = tuple(map(bracketed, self.verdicts))
        room = model.context - model.longest(replies)
        calls = {
            key: JudgeCall(
                key, who, question.slate.id, "unsettled", attempt=before[key].attempt + 1 if key in before else 0
            )
            for key, question in new.items()
        }
        tokens = {key: model.encode(question.messages) for key, question in new.items()}
        if too_long := [key for key in new if len(tokens[key]) > room]:
            yield [
                replace(
                    calls[key],
                    outcome="endpoint_failure",
                    reply=f"the question has {len(tokens[key]):,} tokens, and {self.model} takes {room:,}",
                )
                for key in too_long
            ]
        keys = [key for key in new if len(tokens[key]) <= room]
        since = time.monotonic()
        for logprobs in model.logprobs([tokens[key] for key in keys], replies) if keys else ():
            now = time.monotonic()
            seconds, since = (now - since) / len(logprobs), now
            yield [
                self._settled(calls[keys[i]], new[keys[i]], tokens[keys[i]], lp, seconds) for i, lp in logprobs.items()
            ]

    def _settled(
        self, call: JudgeCall, question: Question, tokens: tuple[int, ...], logprobs: Sequence[float], seconds: float
    ) -> JudgeCall:
        reply = reply_by(dict(zip(self.verdicts, logprobs, strict=True)), question, self.model)
        return replace(
            call, outcome=reply.verdict.outcome, reply=kept([reply]), prompt_tokens=len(tokens), seconds=seconds
        )


def bracketed(verdict: str) -> str:
    """A verdict as a reply."""
    return f"[[{verdict}]]"


def reply_by(logprobs: Mapping[str, float], question: Question, model: str) -> Reply:
    """The reply to a question whose verdicts have probabilities proportional to e^logprob; of equals the first.

    Raises UserError when they are no numbers.
    """
    if not all(map(math.isfinite, logprobs.values())):
        raise UserError(f"the model {model!r} gives no finite probabilities: its weights are broken, choose another")
    most = max(logprobs.values())
    shares = {verdict: math.exp(logprob - most) for verdict, logprob in logprobs.items()}
    chances = {verdict: share / sum(shares.values()) for verdict, share in shares.items() if verdict != ABSTAIN}
    likeliest = max(shares, key=lambda verdict: shares[verdict])
    reply = Reply(question.order, bracketed(likeliest), chances=chances, model=model, scale=question.scale)
    if question.scale is not None:
        return scored(reply, question)
    injected = favoured_attempt(question.slate, question.order, reply.stated) if reply.stated.ranks else ""
    return replace(reply, injected=injected)
