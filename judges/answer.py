"""What a judge is, what it is asked, and what it says about one slate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from judges.ledger import Ledger
from judges.rubric import Rubric
from labeling.records import Annotator, JudgeCall, Label, Outcome, Slate

# What a judge makes of clips of an agent: it cannot compare them, it reads their descriptions, or it sees pictures too.
Clips = Literal["cannot", "reads", "sees"]


@dataclass(frozen=True)
class Answer:
    """What a judge says about one slate: the content of a label."""

    outcome: Outcome
    ranks: tuple[int, ...] | None = None
    probability: float | None = None
    reason: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Waiting:
    """A slate that waits for a judge. failure: its label there, which the next one supersedes. known: calls by key."""

    slate: Slate
    failure: Label | None = None
    known: Mapping[str, JudgeCall] = field(default_factory=dict)


class Judge(Protocol):
    """Anything that answers slates as one annotator."""

    @property
    def annotator(self) -> Annotator:
        """As whom it labels."""

    @property
    def rubric(self) -> Rubric:
        """What it judges by."""

    @property
    def clips(self) -> Clips:
        """What it makes of clips."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a check found that the user should know."""

    def checked(self, ledger: Ledger) -> Judge:
        """Find out early and cheaply what it can do: the judge as it will work. Raises UserError if it cannot."""

    def answer(
        self,
        slates: Iterable[Waiting],
        ledger: Ledger,
        keep: Callable[[Waiting, Answer], Label],
        tell: Callable[[Label], None],
    ) -> None:
        """Answer every slate: `keep` writes an answer down as a label, `tell` is for labels that are on disk.

        New calls are in the ledger before; known ones that were answered are used as they are. Raises BudgetReached
        when a cap ends it, RepliesAwaited when others are to make replies first, KeyboardInterrupt after Ctrl-C, when
        what was under way is finished or given up.
        """
