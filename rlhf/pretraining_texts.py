"""Texts whose likelihood a policy shall keep (PPO-ptx), or responses that it shall imitate, as JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labeling.jsonl import read_objects
from labeling.records import UserError
from rlhf.backbones import Backbone, encode_messages, encode_response
from rlhf.packing import Group


@dataclass(frozen=True)
class Text:
    """A text, or a response to a prompt; only what is not the prompt counts."""

    text: str
    prompt: str | None = None


def read_texts(path: Path) -> tuple[Text, ...]:
    """Read `{"text": …}` or `{"prompt": …, "response": …}` lines, plain or gzipped.

    Raises UserError that names the file and the line.
    """
    texts = []
    for number, data in read_objects(path):
        keys = ("prompt", "response") if "response" in data else ("text",)
        values = [data.get(key) for key in keys]
        if not all(isinstance(v, str) and v.strip() for v in values):
            raise UserError(f'{path}:{number}: write {{"text": "…"}} or {{"prompt": "…", "response": "…"}}')
        texts.append(Text(str(values[-1]), str(values[0]) if len(keys) == 2 else None))
    return tuple(texts)


def text_groups(backbone: Backbone, texts: Sequence[Text]) -> list[Group]:
    """The texts as tokens: of a plain text, the first token is what the others are predicted from."""
    groups = []
    for t in texts:
        if t.prompt is not None:
            prompt = encode_messages(backbone, [{"role": "user", "content": t.prompt}])
            rest = encode_response(backbone, t.text, finished=True)
        else:
            ids = encode_response(backbone, t.text, finished=True)
            prompt, rest = ids[:1], ids[1:]
        room = backbone.context - len(prompt)
        if rest and room > 0:
            groups.append(Group(tuple(prompt), (tuple(rest[:room]),)))
    return groups
