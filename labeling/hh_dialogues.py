"""Two dialogues that were compared as wholes: where do they part, and what was therefore compared?

Anthropic's HH-RLHF (arXiv 2204.05862) writes "\\n\\nHuman: … \\n\\nAssistant: …" twice; others write two lists of
messages. Both become turns, and the turns become one prompt and two texts. Texts without speakers (TRL's implicit
prompt in the standard format) share their first words as prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from labeling.records import Message, Role, UserError

TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
MARKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}


def parse_dialogue(text: str) -> tuple[Message, ...]:
    """The turns of an HH dialogue, without the white space around them.

    Raises UserError when the text does not begin with a turn.
    """
    before, *turns = TURN.split(text)
    if before or not turns:
        raise UserError(
            'a dialogue must begin with "Human:" or "Assistant:", and two plain texts with the same words: '
            'give the prompt under the key "prompt"'
        )
    return tuple(Message(SPEAKERS[who], said.strip()) for who, said in zip(turns[::2], turns[1::2], strict=True))


def is_dialogue(text: str) -> bool:
    """Whether a text begins with a speaker."""
    return TURN.match(text) is not None


def parting_words(one: str, other: str) -> int:
    """How many characters two texts share from the beginning, up to a blank or end of both; 0 for no word."""
    shared = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    for n in range(shared, 0, -1):
        if all(n == len(text) or text[n].isspace() for text in (one, other)):
            return n if one[:n].strip() else 0
    return 0


def parting(one: Sequence[Message], other: Sequence[Message]) -> int:
    """How many turns belong to the prompt that two dialogues share; 0 when they share none.

    The prompt is the longest common beginning that ends with the user and is followed by the assistant in both.
    """
    shared = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    for n in range(min(shared, len(one) - 1, len(other) - 1), 0, -1):
        if one[n - 1].role == "user" and one[n].role == other[n].role == "assistant":
            return n
    return 0


def render_response(turns: Sequence[Message]) -> str:
    """The assistant's turn as it is; where the dialogue went on, the later turns follow as in HH, so none is lost."""
    first, *later = turns
    return first.content + "".join(f"\n\n{MARKERS[turn.role]}: {turn.content}" for turn in later)
