"""What a judge is, and what it says about one slate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from labeling.records import Annotator, JudgeCall, Outcome, Slate

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


class Judge(Protocol):
    """Anything that answers slates as one annotator."""

    @property
    def annotator(self) -> Annotator:
        """As whom it labels."""

    @property
    def clips(self) -> Clips:
        """What it makes of clips."""

    def check(self) -> None:
        """Find out early and cheaply whether it can work. Raises UserError with the cure if not."""

    def answer(
        self,
        slates: Sequence[Slate],
        known: Mapping[str, JudgeCall],
        record: Callable[[JudgeCall], None],
        emit: Callable[[Slate, Answer], None],
    ) -> None:
        """Answer every slate through `emit`; record each new call before, and use successful `known` ones as they are.

        Raises KeyboardInterrupt after Ctrl-C, when what was under way is finished or given up.
        """
