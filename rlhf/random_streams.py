"""Randomness without state: each use has its own stream, named by seed, iteration and purpose.

A resumed run draws what an uninterrupted one would have drawn, with nothing to save.
"""

from __future__ import annotations

import hashlib
import random

import torch


def stream_seed(*name: object) -> int:
    """63 bits that depend on the whole name."""
    digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_stream(*name: object) -> torch.Generator:
    """A CPU generator for the named purpose."""
    return torch.Generator().manual_seed(stream_seed(*name))


def python_stream(*name: object) -> random.Random:
    """A standard-library generator for the named purpose."""
    return random.Random(stream_seed(*name))
