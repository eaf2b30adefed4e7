"""A segment: a piece of an agent's episode, which a clip shows and a reward model scores.

It holds no pictures. The episode's seed and actions bring them back whenever somebody is to look, so a video is a
copy that may be thrown away.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from labeling.records import content_id


@dataclass(frozen=True, eq=False)
class Segment:
    """T consecutive steps of one episode.

    environment: how to make it again, as `rlhf.control.environments.spec` writes it. seed: what the episode was reset
    with. start: steps before the first one shown. actions: (start + T, …), every action from the reset on.
    steps: (T, F) float32, what the reward model reads: the encoded observation beside the encoded action.
    gold: the sum of the true reward over the T steps, which only simulated annotators and figures see. ended: the
    episode terminated with the last step.
    """

    environment: str
    seed: int
    start: int
    actions: np.ndarray
    steps: np.ndarray
    gold: float
    ended: bool = False

    @cached_property
    def id(self) -> str:
        """Hash of what is shown: the environment, the seed, the actions and the first step."""
        done = hashlib.sha256(np.ascontiguousarray(self.actions).tobytes()).hexdigest()
        return content_id("clip", self.environment, self.seed, self.start, str(self.actions.dtype), done)


def to_bytes(array: np.ndarray) -> bytes:
    """An array with its type and shape, in NumPy's own format."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def from_bytes(data: bytes) -> np.ndarray:
    """Read back what `to_bytes` wrote; never runs code that the bytes bring along."""
    return np.load(io.BytesIO(data), allow_pickle=False)
