"""Attention of our own inside a model of the library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def attention_by(config: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Within it, models of this configuration compute attention by `function`, known to the library as `name`.

    The library makes no mask for an attention that it does not know: the function gets what it needs as a keyword of
    the forward call.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(name, function)
    before, config._attn_implementation = config._attn_implementation, name
    try:
        yield
    finally:
        config._attn_implementation = before
