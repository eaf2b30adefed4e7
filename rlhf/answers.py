"""Sampled answers: prompts with each one's responses, as tokens and as candidates."""

from __future__ import annotations

from dataclasses import dataclass

from labeling.records import Candidate, Prompt
from rlhf.sampling import Sampled


@dataclass(frozen=True)
class Answers:
    """Prompts, their token ids, and each one's responses as tokens and as candidates."""

    prompts: tuple[Prompt, ...]
    prompt_ids: tuple[tuple[int, ...], ...]
    sampled: tuple[tuple[Sampled, ...], ...]
    candidates: tuple[tuple[Candidate, ...], ...]

    @property
    def texts(self) -> list[list[str]]:
        """The text of each response, by prompt."""
        return [[c.text for c in row] for row in self.candidates]


def take(answers: Answers, start: int, end: int) -> Answers:
    """The answers to some of the prompts."""
    a, cut = answers, slice(start, end)
    return Answers(a.prompts[cut], a.prompt_ids[cut], a.sampled[cut], a.candidates[cut])
