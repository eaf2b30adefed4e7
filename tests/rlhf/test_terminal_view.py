"""What a run says in the terminal: of a language model as always, of an agent in an agent's words."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from rlhf.terminal_view import TerminalView

FIT = {
    "slates": 8,
    "reward_model": "r/fit-1",
    "labels_by_kind": {"human": 3, "judge": 5, "oracle": 0},
    "heldout_accuracy": 0.75,
    "heldout_accuracy_low": 0.5,
    "heldout_accuracy_high": 0.9,
    "heldout_pairs": 20,
}


def said(*events: tuple[int, str, dict[str, Any]]) -> list[str]:
    file = io.StringIO()
    view = TerminalView(4, Console(file=file, width=300))
    for iteration, kind, data in events:
        view.show(iteration, kind, data)
    view.close()
    return file.getvalue().splitlines()


def phase(iteration: int, name: str) -> tuple[int, str, dict[str, Any]]:
    return iteration, "phase", {"phase": name, "state": "end", "note": "", "seconds": 2.0}


def test_a_language_model() -> None:
    evaluation = {"gold": 0.2, "gold_low": 0.1, "gold_high": 0.3}
    row = {
        "seconds": 61.0,
        "proxy_heldout": 1.5,
        "gold_heldout": 0.4,
        "kl_per_sequence": 2.0,
        "verdict": "not clear yet",
    }
    assert said(
        (0, "run", {"model": "tiny"}),
        phase(0, "load"),
        (0, "evaluation", evaluation),
        phase(1, "sample"),
        (1, "fit", FIT),
        (1, "evaluation", {**evaluation, "gold": 0.4}),
        (1, "iteration", row),
    ) == [
        "  [start] load the model: 2.0 s",
        "  before training: held-out gold 0.200 (95 % CI 0.100 to 0.300)",
        "  [1/4] sample responses: 2.0 s",
        "  reward model r/fit-1: 8 slates, labels: 3 by humans, 5 by judges; right on 0.750 (0.500 to 0.900) of "
        "held-out pairs",
        "  held-out gold 0.400 (95 % CI 0.100 to 0.300), before training 0.200",
        "iteration 1/4 in 61 s: proxy 1.500, gold 0.400, KL 2.000 nats per response; not clear yet",
    ]


AGENT = (0, "run", {"model": "Hopper-v5", "environment": "Hopper-v5"})
EVALUATION = {"gold": -120.0, "gold_low": -150.5, "gold_high": -100.0, "proxy": None, "length": 200.0}
ROW = {"seconds": 61.0, "proxy_heldout": 4.25, "gold_heldout": 25.04, "labels": 40, "environment_steps": 8192.0}


def test_an_update_with_too_little_says_so() -> None:
    full = {"steps": 4.0, "missing_rewards": 2.0, "unused_samples": 8.0, "attempts": 4.0, "groups_short": 0.0}
    assert said(
        (1, "update", full),
        (2, "update", full | {"groups_short": 3.0}),
        (3, "update", {"steps": 0.0, "missing_rewards": 2.0, "unused_samples": 30.0}),
        (4, "update", {"predicted_reward": 1.0}),
    ) == [
        "  3 prompts short: after 4 draws the filter has left no more (attempts in [recipe])",
        "  nothing to learn from: 2 answers have no reward, the filter left 30 out",
    ]


def test_an_agent() -> None:
    assert said(
        AGENT,
        phase(0, "load"),
        (0, "evaluation", EVALUATION),
        phase(1, "sample"),
        phase(1, "update"),
        (1, "evaluation", {**EVALUATION, "gold": 25.04, "proxy": 4.25}),
        (1, "iteration", {**ROW, "verdict": "not clear yet"}),
    ) == [
        "  [start] make the agent: 2.0 s",
        "  before training: evaluation episodes: true return -120.0 (95 % CI -150.5 to -100.0), 200 steps long",
        "  [1/4] run the agent: 2.0 s",
        "  [1/4] train the agent: 2.0 s",
        "  evaluation episodes: true return 25.0 (95 % CI -150.5 to -100.0), predicted return 4.2, 200 steps long",
        "iteration 1/4 in 61 s: true return 25.0, 40 labels and 8192 environment steps so far; not clear yet",
    ]


def test_an_agent_whose_behaviour_no_reward_function_knows() -> None:
    unknown = {"gold": None, "gold_low": None, "gold_high": None}
    lines = said(
        AGENT,
        (1, "evaluation", {**EVALUATION, **unknown, "proxy": 4.0}),
        (1, "iteration", {**ROW, "gold_heldout": None, "verdict": "not clear yet"}),
    )
    assert lines == [
        "  evaluation episodes: predicted return 4.0, 200 steps long",
        "iteration 1/4 in 61 s: 40 labels and 8192 environment steps so far; not clear yet",
    ]


def test_a_true_return_of_nothing_is_a_true_return() -> None:
    (line,) = said(AGENT, (1, "iteration", {**ROW, "gold_heldout": 0.0, "verdict": "not clear yet"}))[-1:]
    assert "true return 0.0, 40 labels" in line
