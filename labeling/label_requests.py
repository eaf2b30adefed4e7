"""What a labeling page or program may ask of the service: checked here, before anything looks at it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, model_validator

from labeling.assignment import MOST_AHEAD, Mode, Queue
from labeling.records import MAX_CANDIDATES, MAX_TEXT


def _storable(text: str) -> str:
    """The text. Raises ValueError for one that an export could write and no import would read."""
    if "\0" in text:
        raise ValueError("the character U+0000 cannot be kept: remove it")
    return text


STORABLE = AfterValidator(_storable)
Name = Annotated[str, Field(pattern=r"^[\w.@-]{1,64}$")]
SlateId = Annotated[str, Field(pattern=r"^slate_[0-9a-f]{16}$")]
ClientKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
Rank = Annotated[StrictInt, Field(ge=1, le=MAX_CANDIDATES)]
Place = Annotated[StrictInt, Field(ge=0, lt=MAX_CANDIDATES)]
Flag = Literal["unsafe", "broken"]
Word = Annotated[str, Field(pattern=r"^[\w-]{1,40}$")]


class LeaseRequest(BaseModel):
    """Ask for something to label. annotator: who labels, in a project without accounts; else it is who signed in.

    queue: "disputed" asks for slates that people contradict each other on, to decide; for owners and reviewers.
    ahead: how many slates to give after the one to answer now, at most; of few slates a person gets few.
    have: the ids of slates that came before and need not come again.
    """

    model_config = ConfigDict(extra="forbid")
    annotator: Name = "local"
    mode: Mode = "pairs"
    queue: Queue = "new"
    ahead: Annotated[StrictInt, Field(ge=0, le=MOST_AHEAD)] = 1
    have: Annotated[list[SlateId], Field(max_length=5 * MOST_AHEAD)] = []


class UndoRequest(LeaseRequest):
    """Take back the last answer of this mode."""

    client_key: ClientKey


class SubmitRequest(UndoRequest):
    """An answer: `ranks[place]` for the outcome "ranked" (1 = best, equal = tied), none otherwise.

    unranked: places that were left out of the order; they share the last rank. strength: of a pair, from 0 (about
    equal) to 1. criteria: of a pair, which place is better by a single criterion.
    """

    slate: SlateId
    outcome: Literal["ranked", "both_bad", "skip"]
    ranks: Annotated[list[Rank], Field(min_length=2, max_length=MAX_CANDIDATES)] | None = None
    unranked: Annotated[list[Place], Field(max_length=MAX_CANDIDATES)] = []
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    reason: Annotated[str, Field(max_length=MAX_TEXT), STORABLE] = ""
    flags: Annotated[list[Flag], Field(max_length=10)] = []
    criteria: Annotated[dict[Word, Literal["left", "right", "tie"]], Field(max_length=20)] = {}
    seconds: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _ranks_belong_to_ranked(self) -> SubmitRequest:
        if (self.outcome == "ranked") != (self.ranks is not None):
            raise ValueError("ranks are given exactly when the outcome is 'ranked'")
        return self


class ReviseRequest(SubmitRequest):
    """An answer in the place of a recent one of the same person. replaces: the client_key of that one."""

    replaces: ClientKey
