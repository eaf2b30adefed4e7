"""From scores to token rewards, and the controllers of the KL penalty and of the sampling temperature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from rlhf.divergences import k1

ScoreFn = Callable[[Tensor, Tensor, int], Tensor]


def as_scored(scores: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """The scores themselves."""
    return scores


def overlong_penalised(scores: Tensor, lengths: Tensor, longest: int, *, cache: float = 0.2) -> Tensor:
    """DAPO's soft penalty of length (arXiv 2503.14476), added to the (N,) scores.

    0 while |y| ≤ L_max − L_cache; then `((L_max − L_cache) − |y|)/L_cache`, down to −1 at L_max; −1 beyond.
    lengths: (N,) tokens. L_max is `longest`, L_cache the share `cache` of it (the paper's 4,096 of 20,480).
    """
    buffer = cache * longest
    return scores + ((longest - buffer - lengths) / buffer).clamp(-1.0, 0.0)


@dataclass
class RunningUnit:
    """Mean and variance of all scores so far (Welford), in which new scores are expressed."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def take(self, scores: Tensor) -> None:
        """Count the (N,) scores in."""
        for score in scores.tolist():
            self.count += 1
            step = score - self.mean
            self.mean += step / self.count
            self.squares += step * (score - self.mean)

    def express(self, scores: Tensor) -> Tensor:
        """`(score − mean)/std` by all that were taken, with the unbiased std; one of 0 counts as 1."""
        std = math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 1.0
        return (scores - self.mean) / (std if std > 1e-8 else 1.0)


def token_rewards(given: Tensor, old_logp: Tensor, ref_logp: Tensor, mask: Tensor, beta: float) -> Tensor:
    """`r_t = given_t − β·(old_logp_t − ref_logp_t)` (InstructGPT, arXiv 2203.02155).

    given: (N, T), the outcome at the last token or step rewards at the ends of steps. Returns (N, T), 0 outside the
    mask.
    """
    return (given - beta * k1(old_logp, ref_logp)) * mask


def adapt_beta(beta: float, kl: float, target: float, samples: int, horizon: int) -> float:
    """`β·(1 + clip(KL/target − 1, ±0.2)·n/horizon)` with KL in nats summed per sequence (arXiv 1909.08593).

    A horizon below n counts as n: else a short one would turn β negative.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * samples / max(horizon, samples))


def adapt_temperature(temperature: float, measured: float, target: float, low: float, high: float) -> float:
    """`clip(T·(1 + 0.25·clip(1 − measured/target, ±0.2)), low, high)`: warmer while there is too little variety.

    measured, target: entropy in nats per token, or the share of different bigrams.
    """
    error = min(max(1 - measured / target, -0.2), 0.2)
    return min(max(temperature * (1 + 0.25 * error), low), high)
