"""What labels counted for when they became preferences, annotator by annotator: the record that a fit keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from labeling.preferences import expand
from labeling.quality import fitted
from labeling.records import Annotator, Label
from labeling.reliability import Reliability
from labeling.soft_labels import SoftLabels

TrustSource = Literal["declared", "answers", "temperature", "isotonic"]


@dataclass(frozen=True)
class Trust:
    """An annotator's weight and flip rate, and where the flip rate comes from.

    source: as declared, as answers showed that others or known answers check (see `labeling.reliability`), or a method
    of `labeling.soft_labels`: then each pair had its own, and flip_rate is their mean. evidence: how many answers were
    checked, or on how many slates the method was fitted; audit: whether these were drawn at random. calibration: names
    the fitted maps; two fits with the same name used the same ones.
    """

    annotator: str
    weight: float
    flip_rate: float
    source: TrustSource
    evidence: int = 0
    audit: bool = False
    calibration: str = ""


def trust_in(
    labels: Sequence[Label],
    annotators: Mapping[str, Annotator],
    found: Mapping[str, Reliability],
    soft: Mapping[str, SoftLabels],
) -> dict[str, Trust]:
    """What the labels of each annotator count for. annotators: as declared."""
    as_shown = fitted(annotators, found)
    trust = {}
    for name, annotator in as_shown.items():
        if fit := soft.get(name):
            rates = [p.flip_rate for x in labels if x.annotator == name for p in expand(x, annotator, fit)]
            if rates:
                given = fit.slates, fit.audit, fit.id
                trust[name] = Trust(name, annotator.weight, fmean(rates), fit.method, *given)
        elif annotator is annotators[name]:
            trust[name] = Trust(name, annotator.weight, annotator.flip_rate, "declared")
        else:
            trust[name] = Trust(name, annotator.weight, annotator.flip_rate, "answers", found[name].checked)
    return trust
