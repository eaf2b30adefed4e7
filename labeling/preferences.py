"""Labels become preferences: a weak order of K candidates expands into C(K, 2) soft pairs.

The only place where "who said what" turns into training targets. Non-answers expand into nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from labeling.records import Annotator, Label, Preference, pairs
from labeling.reliability import MOST_FLIPS
from labeling.soft_labels import SoftLabels

NOTHING: Mapping[str, SoftLabels] = {}
Calibrated = Callable[[Preference, SoftLabels], Preference]


def with_doubt(preference: Preference, soft: SoftLabels) -> Preference:
    """The side that the calibrated q = P(i better) favours, with ε = 2·min(q, 1 − q) for the flip rate.

    q says how often people agree with such a verdict, and not how near the two answers are to each other. As the target
    of the loss it would teach that they are near; as a flip rate, `P' = (1−ε)·σ(lead) + ε/2`, it asks of the model
    that such verdicts come out right at the rate q, and a verdict worth nothing teaches nothing.
    """
    q = soft.calibrated(preference.slate_id, preference.p)
    favoured = 0.5 + 0.5 * ((q > 0.5) - (q < 0.5))
    return replace(preference, p=favoured, flip_rate=min(MOST_FLIPS, 2 * min(q, 1 - q)))


def with_probability(preference: Preference, soft: SoftLabels) -> Preference:
    """The calibrated q = P(i better) itself, which needs no flip rate: for counting who wins how often."""
    return replace(preference, p=soft.calibrated(preference.slate_id, preference.p), flip_rate=0.0)


def expand(
    label: Label, annotator: Annotator, soft: SoftLabels | None = None, calibrated: Calibrated = with_doubt
) -> tuple[Preference, ...]:
    """Expand one label into C(K, 2) preferences: p = 1 above, 0 below, 0.5 tied, or the pair's own probability.

    Of two candidates that were both left unranked nothing is known, and they give no preference.
    Each of the C(K, 2) pairs carries the annotator's weight and flip rate. A pair's strength becomes its margin
    (Llama-2, arXiv 2307.09288), signed towards the preferred side. soft: what the annotator's probabilities are worth;
    calibrated: what a preference becomes by that.
    """
    if label.ranks is None:
        return ()
    preferences = []
    for i, j in pairs(len(label.ranks)):
        if i in label.unranked and j in label.unranked:
            continue
        lead = label.ranks[j] - label.ranks[i]
        side = (lead > 0) - (lead < 0)
        p = (1 + side) / 2 if label.probability is None else label.probability
        margin = side * (label.strength or 0.0)
        preference = Preference(label.slate_id, i, j, p, margin, annotator.weight, annotator.flip_rate)
        preferences.append(preference if soft is None else calibrated(preference, soft))
    return tuple(preferences)


def expand_all(
    labels: Iterable[Label],
    annotators: Mapping[str, Annotator],
    soft: Mapping[str, SoftLabels] = NOTHING,
    calibrated: Calibrated = with_doubt,
) -> tuple[Preference, ...]:
    """Expand the standing labels of one slate; where several annotators answered, their weights add up.

    soft: whose probabilities are calibrated. calibrated: see `expand`.
    """
    return tuple(p for x in labels for p in expand(x, annotators[x.annotator], soft.get(x.annotator), calibrated))
