"""What a model that sees is sent: a question in the chat format, with pictures of each clip beside its description."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from judges.questions import Question
from labeling.records import Message

Draw = Callable[[str, int], Sequence[bytes]]  # a clip's id and how many pictures, to PNGs in the order of time
ChatMessage = Mapping[str, Any]
PROBE_SIDE = 64  # some models refuse pictures that are smaller than one of their patches


def chat(messages: Sequence[Message]) -> list[ChatMessage]:
    """Messages of text alone."""
    return [{"role": message.role, "content": message.content} for message in messages]


def chat_with_pictures(question: Question, pictures: Callable[[str], Sequence[bytes]]) -> list[ChatMessage]:
    """The question with pictures after the description of each clip, in the order of the letters."""
    content: list[dict[str, Any]] = []
    for part in question.parts:
        content.append({"type": "text", "text": part.text})
        content += map(image_part, pictures(part.clip) if part.clip else ())
    return [*chat(question.messages[:-1]), {"role": "user", "content": content}]


def image_part(png: bytes) -> dict[str, Any]:
    """A PNG as a part of a message's content."""
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(png).decode()}"}}


def grey_png(side: int = PROBE_SIDE) -> bytes:
    """A grey square, to find out whether a model takes pictures at all."""
    rows = (b"\x00" + b"\x80" * side) * side  # each row begins with its filter: none
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)  # 8 bits of grey
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
