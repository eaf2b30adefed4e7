"""Reliability beside an independent implementation: crowd-kit's one-coin Dawid–Skene (`pip install -e '.[crowd]'`)."""

from __future__ import annotations

from random import Random

import pytest

from labeling import reliability
from labeling.agreement import Pair
from labeling.reliability import fit_reliability

classification = pytest.importorskip("crowdkit.aggregation.classification", reason="needs the extra `crowd`")
pandas = pytest.importorskip("pandas")


@pytest.mark.parametrize("seed", range(5))
def test_without_known_answers_judges_and_a_prior_both_say_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # crowd-kit has no prior on accuracies; what is left of ours says where to begin.
    monkeypatch.setattr(reliability, "PRIOR_RIGHT", 8e-9)
    monkeypatch.setattr(reliability, "PRIOR_WRONG", 2e-9)
    monkeypatch.setattr(reliability, "ROUNDS", 1000)
    chance = Random(seed)
    planted = {f"p{n}": chance.uniform(0.55, 0.95) for n in range(6)}
    said: dict[Pair, dict[str, int]] = {}
    for n in range(300):
        answers = {who: 1 if chance.random() < right else -1 for who, right in planted.items() if chance.random() < 0.7}
        # Each pair stands there turned round too: crowd-kit also learns how often a side is the better one.
        for m, sign in ((2 * n, 1), (2 * n + 1, -1)):
            said[Pair(f"s{m}", 0, 1)] = {who: sign * side for who, side in answers.items()}
    ours = fit_reliability(said, list(planted), [], {})
    rows = [(pair.slate_id, who, side) for pair, sides in said.items() if len(sides) > 1 for who, side in sides.items()]
    theirs = classification.OneCoinDawidSkene(n_iter=1000, tol=0).fit(
        pandas.DataFrame(rows, columns=["task", "worker", "label"])
    )
    for who in planted:
        assert ours[who].accuracy == pytest.approx(theirs.skills_[who], abs=1e-3)
