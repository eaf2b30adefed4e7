"""Answers that were never sampled, and a rule that counts letters: for tests of rewards and of the draw of samples."""

from labeling.records import Candidate, Message, Prompt
from rlhf.answers import Answers
from rlhf.backbones import encode_response, load_backbone
from rlhf.rewards import Scorer
from rlhf.sampling import Sampled
from rlhf.scoring import rule_scorer

RULED = load_backbone("tiny")


def answers(texts: list[list[str]], finished: bool = True, first: int = 0) -> Answers:
    """The texts as responses to prompts numbered from `first`, as tokens of the tiny model."""
    prompts = tuple(Prompt((Message("user", f"prompt {first + n}"),)) for n in range(len(texts)))
    sampled = tuple(
        tuple(
            Sampled(tuple(ids), (-0.5,) * len(ids), finished)
            for ids in (encode_response(RULED, text, finished) for text in row)
        )
        for row in texts
    )
    candidates = tuple(tuple(Candidate(text, "policy-0", finished) for text in row) for row in texts)
    return Answers(prompts, tuple((70 + first + n,) for n in range(len(texts))), sampled, candidates)


def letters(pairs: list) -> list[float | None]:
    """How many letters a candidate has; a question mark cannot be scored."""
    return [None if "?" in c.text else float(sum(x.isalpha() for x in c.text)) for _, c in pairs]


def ruled() -> Scorer:
    """The rule as a scorer."""
    return rule_scorer(letters, RULED)
