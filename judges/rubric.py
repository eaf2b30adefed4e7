"""A rubric: what "better" means, in words for a model and in criteria that need none. Its file is TOML or Markdown."""

from __future__ import annotations

from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from judges.criteria import STRICT, Criterion, Weight, clip01, words
from judges.toml_data import read_markdown, read_toml, validated
from labeling.records import Candidate, Prompt, UserError, content_id

ADDED_LATER = ("aspects", "examples", "references", "reasoning", "scale")
Text = Annotated[str, Field(min_length=1)]
Point = Annotated[int, Field(ge=0, le=100)]


def _rising(scale: tuple[int, int]) -> tuple[int, int]:
    if scale[0] >= scale[1]:
        raise ValueError(f"the lowest score ({scale[0]}) must be below the highest ({scale[1]})")
    return scale


Scale = Annotated[tuple[Point, Point], AfterValidator(_rising)]


@dataclass(frozen=True, config=STRICT)
class Aspect:
    """One thing that a model is to weigh. weight: against the other aspects."""

    name: Text
    description: Text
    weight: Weight = 1.0


@dataclass(frozen=True, config=STRICT)
class Example:
    """A comparison of two answers (A and B), shown to a model with its verdict and, where it reasons, the reason."""

    prompt: Text
    answers: tuple[Text, Text]
    verdict: Literal["A", "B", "TIE"]
    reason: Text


@dataclass(frozen=True, config=STRICT)
class Reference:
    """A right answer to a prompt (to its last message), shown to a model beside the answers that it compares."""

    prompt: Text
    answer: Text


@dataclass(frozen=True, config=STRICT)
class Rubric:
    """What "better" means.

    instructions, aspects, examples, references: for judges that are models. reasoning: they are to reason before the
    verdict. scale: they give each candidate alone a whole number from the first to the second, and compare none.
    criteria: for the judge that needs no model, and for gold scores.
    gates: criteria that no other can make up for; their scores are factors, and their weights do not count.
    least_words: a shorter response has its score scaled by words / least_words, so an empty one gets 0.
    tie_margin: scores closer than this are tied. temperature: P(0 better) = σ((s0 - s1) / temperature).
    """

    name: Annotated[str, Field(min_length=1)]
    instructions: Annotated[str, Field(min_length=1)]
    criteria: tuple[Criterion, ...] = ()
    gates: tuple[Criterion, ...] = ()
    least_words: Annotated[int, Field(ge=1)] = 5
    tie_margin: Annotated[float, Field(ge=0, lt=1)] = 0.02
    temperature: Weight = 0.1
    aspects: tuple[Aspect, ...] = ()
    examples: tuple[Example, ...] = ()
    references: tuple[Reference, ...] = ()
    reasoning: bool = False
    scale: Scale | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that the rubric says: a changed rubric is another one."""
        said = TypeAdapter(Rubric).dump_python(self, mode="json")
        for key in ADDED_LATER:  # a rubric that does not use them is the one that it was
            if not said[key]:
                del said[key]
        return content_id("rubric", said)

    def reference(self, prompt: Prompt) -> str:
        """A right answer to the prompt, empty if none is known."""
        asked = prompt.messages[-1].content.strip()
        return next((known.answer for known in self.references if known.prompt.strip() == asked), "")


def check_countable(rubric: Rubric, candidate: Candidate) -> None:
    """Raise UserError for a rubric without criteria, and for a clip.

    A clip's text describes it, and the words of a description say nothing about the agent.
    """
    if candidate.clip:
        raise UserError(
            f"the rubric {rubric.name!r} counts words, and {candidate.clip} shows an agent: let people, an "
            'annotator of kind "endpoint" or the simulated one compare clips'
        )
    if not rubric.criteria:
        raise UserError(f"the rubric {rubric.name!r} has no [[criteria]]: add some, or use it with an endpoint judge")


def score(rubric: Rubric, prompt: Prompt, candidate: Candidate) -> float:
    """The rubric's score of one response of n words: min(1, n / least_words) · Π gates · Σ w_c·s_c / Σ w_c.

    In [0, 1], and 0 without words. Deterministic, so it serves as gold. Raises UserError as `check_countable` does.
    """
    check_countable(rubric, candidate)
    mean = sum(c.weight * c.score(prompt, candidate) for c in rubric.criteria) / sum(c.weight for c in rubric.criteria)
    substance = clip01(len(words(candidate.text)) / rubric.least_words)
    return substance * mean * prod(gate.score(prompt, candidate) for gate in rubric.gates)


def load_rubric(name_or_path: str, rubrics: Path) -> Rubric:
    """Load a rubric by the name of a shipped one (a TOML file in the folder `rubrics`) or by the path of a file.

    A Markdown file is its instructions, named as the file is; all else may stand in TOML at its top, between two lines
    of +++. Raises UserError, one line with file, key and cure, when there is no such rubric or it is not valid.
    """
    path = Path(name_or_path)
    if path.suffix == ".md":
        data, instructions = read_markdown(path)
        return validated(Rubric, {"name": path.stem, "instructions": instructions, **data}, path)
    if path.suffix != ".toml":
        path = rubrics / f"{name_or_path}.toml"
        shipped = sorted(p.stem for p in rubrics.glob("*.toml"))
        if path.stem not in shipped:
            known = ", ".join(shipped)
            raise UserError(
                f"there is no rubric {name_or_path!r}: use one of {known}, or the path of a .toml or .md file"
            )
    return validated(Rubric, read_toml(path), path)
