"""Labels become preferences: a weak order of K candidates expands into C(K, 2) soft pairs.

The only place where "who said what" turns into training targets. Non-answers expand into nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from labeling.records import Annotator, Label, Preference, pairs
from labeling.soft_labels import SoftLabels

NOTHING: Mapping[str, SoftLabels] = {}


def expand(label: Label, annotator: Annotator, soft: SoftLabels | None = None) -> tuple[Preference, ...]:
    """Expand one label into C(K, 2) preferences: p = 1 above, 0 below, 0.5 tied, or the pair's own probability.

    Of two candidates that were both left unranked nothing is known, and they give no preference.
    Each of the C(K, 2) pairs carries the annotator's weight and flip rate. A pair's strength becomes its margin
    (Llama-2, arXiv 2307.09288), signed towards the preferred side. soft: calibrates p; then no flip rate remains, since
    a p that says how often people agree has the annotator's errors in it already.
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
        calibrated = p if soft is None else soft.calibrated(label.slate_id, p)
        flip_rate = annotator.flip_rate if soft is None else 0.0
        preferences.append(Preference(label.slate_id, i, j, calibrated, margin, annotator.weight, flip_rate))
    return tuple(preferences)


def expand_all(
    labels: Iterable[Label], annotators: Mapping[str, Annotator], soft: Mapping[str, SoftLabels] = NOTHING
) -> tuple[Preference, ...]:
    """Expand the standing labels of one slate; where several annotators answered, their weights add up.

    soft: whose probabilities are calibrated.
    """
    return tuple(p for x in labels for p in expand(x, annotators[x.annotator], soft.get(x.annotator)))
