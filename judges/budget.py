"""What judging may cost, what it can cost at most, and what it did cost.

Tokens are counted by the endpoint. Before a call nobody can know them, but a token is at least one byte of text: so
the bytes of a question bound its tokens from above, and a cap that is kept with them is never exceeded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass as validated_dataclass

from judges.criteria import STRICT
from labeling.records import Spending

MESSAGE_TOKENS = 16  # what a chat template puts around a message, at most
# The most that a small picture costs: a base of 2,833 and 5,667 for its one tile (OpenAI's smallest models).
PICTURE_TOKENS = 8_500
TOKENS_PER_BYTE = 0.3  # of English text, before anything was measured
MILLION = 1_000_000

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0)]


class BudgetReached(Exception):
    """A cap leaves no room for another call."""


@validated_dataclass(frozen=True, config=STRICT)
class Budget:
    """The most that may be spent in a project, over all runs; None = no cap. money: in dollars."""

    money: Amount | None = None
    tokens: Whole | None = None
    calls: Whole | None = None

    def below(self, spent: Spending) -> bool:
        """Whether a cap is below what is spent."""
        totals = ((spent.cost, self.money), (spent.tokens, self.tokens), (spent.calls, self.calls))
        return any(cap is not None and total > cap for total, cap in totals)

    def used(self, spent: Spending) -> str:
        """How much of each cap is used, in words."""
        parts = [
            *([] if self.money is None else [f"${spent.cost:.4f} of ${self.money:.4f}"]),
            *([] if self.tokens is None else [f"{spent.tokens:,} of {self.tokens:,} tokens"]),
            *([] if self.calls is None else [f"{spent.calls:,} of {self.calls:,} calls"]),
        ]
        return ", ".join(parts)


@validated_dataclass(frozen=True, config=STRICT)
class Price:
    """Dollars for a million tokens of questions (prompt) and of replies (completion)."""

    prompt: Amount
    completion: Amount

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What so many tokens cost, in dollars."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / MILLION


FREE = Price(0, 0)
UNLIMITED = Budget()


@dataclass(frozen=True)
class Caps:
    """What bounds a judge. own: its own budget; together: that of all judges of the project, in whatever process."""

    own: Budget = UNLIMITED
    together: Budget = UNLIMITED

    def used(self, own: Spending, together: Spending) -> str:
        """How much of each cap is used, in words."""
        shared = self.together.used(together)
        return "; ".join(part for part in (self.own.used(own), shared and f"{shared} by all judges together") if part)


UNCAPPED = Caps()


@dataclass(frozen=True)
class Size:
    """How large a question is: bytes of its text, messages and pictures."""

    text: int
    messages: int
    pictures: int

    @property
    def most_tokens(self) -> int:
        """More than its tokens."""
        return self.text + self.messages * MESSAGE_TOKENS + self.pictures * PICTURE_TOKENS


def size_of(messages: Sequence[Mapping[str, Any]]) -> Size:
    """The size of a question in the chat format."""
    parts: list[Mapping[str, Any]] = []
    for message in messages:
        content = message["content"]
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return Size(sum(len(text.encode()) for text in texts), len(messages), len(parts) - len(texts))
