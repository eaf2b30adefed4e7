"""Criteria: what can be said about one response by counting, without any model.

Each criterion is a frozen value that holds its parameters (checked when it is made, unknown keys refused) and
whose `score(prompt, candidate)` lies in [0, 1], 1 = as wanted. All are deterministic, so they also serve as gold
in experiments. Words are found by spaces and letters: made for languages that write words apart.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from labeling.records import Candidate, Prompt

STRICT = ConfigDict(extra="forbid")
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)\]*]*\W*$")
STEM_LETTERS = 5
FUNCTION_WORDS = frozenset(
    """
    a about after again all also always am an and any are as at be because been before being between both but by can
    could did do does doing don't down each every few for from had has have having he her here hers him his how i i'd
    i'll i'm i've if in into is isn't it it's its just let's many may me might more most much my never no nor not now
    of off on once one only or other our out over own same shall she should so some such than that that's the their
    them then there there's these they they're this those through to too under until up us very was we we're were
    what what's when where which while who whom why will with without won't would you you'd you'll you're you've your
    """.split()  # noqa: SIM905 - a list of 150 quoted words would fill a page
)
REQUEST_WORDS = frozenset(
    """
    answer briefly describe explain five four get give good go help know let list make name need please question
    sentence sentences short suggest tell thing things three two use want way word words write
    """.split()  # noqa: SIM905
)
REFUSALS = (
    "as an ai",
    "as a language model",
    "i can't assist",
    "i can't help",
    "i cannot assist",
    "i cannot help",
    "i cannot provide",
    "i'm not able to",
    "i'm unable to",
    "i am unable to",
    "i'm sorry, but",
)


def words(text: str) -> list[str]:
    """The words of a text, in lower case, with straight apostrophes."""
    return WORD.findall(text.lower().replace("’", "'"))


def content_stems(text: str) -> set[str]:
    """The first letters of each word that carries meaning, so that `plant`, `plants` and `planting` meet."""
    return {word[:STEM_LETTERS] for word in words(text) if word not in FUNCTION_WORDS | REQUEST_WORDS}


def clip01(value: float) -> float:
    """Clip to [0, 1]."""
    return min(1.0, max(0.0, value))


@dataclass(frozen=True, config=STRICT)
class Length:
    """Length in words n: 1 for least <= n <= most, n / least below, 1 - (n - most) / falloff above (not under 0)."""

    kind: Literal["length"]
    least: Count
    most: Count
    weight: Weight = 1.0
    falloff: Count = 30

    @model_validator(mode="after")
    def _ordered(self) -> Length:
        if self.least > self.most:
            raise ValueError(f"least ({self.least}) must not exceed most ({self.most})")
        return self

    def score(self, prompt: Prompt, candidate: Candidate) -> float:
        """See the class."""
        n = len(words(candidate.text))
        return n / self.least if n < self.least else clip01(1 - max(0, n - self.most) / self.falloff)


@dataclass(frozen=True, config=STRICT)
class NotRepetitive:
    """Share of distinct n-grams of words: |set of n-grams| / |n-grams| (distinct-n, arXiv 1510.03055).

    A text of fewer than n words is one n-gram.
    """

    kind: Literal["not_repetitive"]
    weight: Weight = 1.0
    n: Count = 2

    def score(self, prompt: Prompt, candidate: Candidate) -> float:
        """See the class."""
        found = words(candidate.text)
        grams = [tuple(found[i : i + self.n]) for i in range(max(1, len(found) - self.n + 1))]
        return len(set(grams)) / len(grams)


@dataclass(frozen=True, config=STRICT)
class Sentiment:
    """Tone by the VADER lexicon (Hutto & Gilbert 2014): compound c in [-1, 1] becomes (c + 1) / (enough + 1).

    It saturates at c = enough, so that heaping up happy words gains nothing.
    """

    kind: Literal["sentiment"]
    weight: Weight = 1.0
    enough: Annotated[float, Field(gt=-1, le=1)] = 0.8

    def score(self, prompt: Prompt, candidate: Candidate) -> float:
        """See the class."""
        compound: float = _vader().polarity_scores(candidate.text)["compound"]
        return clip01((compound + 1) / (self.enough + 1))


@dataclass(frozen=True, config=STRICT)
class OnPrompt:
    """Stays on the prompt without copying it: min(1, |P∩R| / (overlap·|P|)) · min(1, |R\\P| / (novelty·|R|)).

    P and R are the content words of the last message of the prompt and of the response. The first factor
    saturates once a share `overlap` of the prompt's words is taken up; the second is 0 for a copy of the prompt.
    Without content words in the prompt the first factor is 1; without any in the response the score is 0.
    """

    kind: Literal["on_prompt"]
    weight: Weight = 1.0
    overlap: Annotated[float, Field(gt=0, le=1)] = 0.3
    novelty: Annotated[float, Field(gt=0, le=1)] = 0.5

    def score(self, prompt: Prompt, candidate: Candidate) -> float:
        """See the class."""
        asked, said = content_stems(prompt.messages[-1].content), content_stems(candidate.text)
        if not said:
            return 0.0
        taken_up = clip01(len(asked & said) / (self.overlap * len(asked))) if asked else 1.0
        return taken_up * clip01(len(said - asked) / (self.novelty * len(said)))


@dataclass(frozen=True, config=STRICT)
class Finished:
    """Said to the end: ½ for stopping before the length limit, ½ for ending like a sentence."""

    kind: Literal["finished"]
    weight: Weight = 1.0

    def score(self, prompt: Prompt, candidate: Candidate) -> float:
        """See the class."""
        ends = SENTENCE_END.search(candidate.text[-40:]) is not None
        return 0.5 * candidate.finished + 0.5 * ends


@dataclass(frozen=True, config=STRICT)
class PlainWords:
    """Share of words of at most `letters` letters."""

    kind: Literal["plain_words"]
    weight: Weight = 1.0
    letters: Count = 9

    def score(self, prompt: Prompt, candidate: Candidate) -> float:
        """See the class."""
        found = words(candidate.text)
        return sum(len(word) <= self.letters for word in found) / max(1, len(found))


@dataclass(frozen=True, config=STRICT)
class Fluent:
    """Reads like English rather than keywords: f = share of function words, 1 for least <= f <= most.

    Below it is f / least, above (1 - f) / (1 - most): a list of keywords and a string of "the" both get 0.
    """

    kind: Literal["fluent"]
    weight: Weight = 1.0
    least: Annotated[float, Field(gt=0, lt=1)] = 0.3
    most: Annotated[float, Field(gt=0, lt=1)] = 0.65

    @model_validator(mode="after")
    def _ordered(self) -> Fluent:
        if self.least > self.most:
            raise ValueError(f"least ({self.least}) must not exceed most ({self.most})")
        return self

    def score(self, prompt: Prompt, candidate: Candidate) -> float:
        """See the class."""
        found = words(candidate.text)
        share = sum(word in FUNCTION_WORDS for word in found) / max(1, len(found))
        return clip01(min(share / self.least, (1 - share) / (1 - self.most)))


@dataclass(frozen=True, config=STRICT)
class Avoids:
    """1 when none of the phrases occurs (in any case), else 0. Without `phrases`: the usual refusals."""

    kind: Literal["avoids"]
    weight: Weight = 1.0
    phrases: Annotated[tuple[str, ...], Field(min_length=1)] = REFUSALS

    def score(self, prompt: Prompt, candidate: Candidate) -> float:
        """See the class."""
        return float(not _mentions(candidate.text, self.phrases))


@dataclass(frozen=True, config=STRICT)
class Mentions:
    """1 when at least one of the phrases occurs (in any case), else 0."""

    kind: Literal["mentions"]
    phrases: Annotated[tuple[str, ...], Field(min_length=1)]
    weight: Weight = 1.0

    def score(self, prompt: Prompt, candidate: Candidate) -> float:
        """See the class."""
        return float(_mentions(candidate.text, self.phrases))


Criterion = Annotated[
    Length | NotRepetitive | Sentiment | OnPrompt | Finished | PlainWords | Fluent | Avoids | Mentions,
    Field(discriminator="kind"),
]


def _mentions(text: str, phrases: tuple[str, ...]) -> bool:
    """Whether a phrase occurs as whole words."""
    said = f" {' '.join(words(text))} "
    return any(f" {' '.join(words(phrase))} " in said for phrase in phrases)


@lru_cache(maxsize=1)
def _vader():  # type: ignore[no-untyped-def]  # its package has no types
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
