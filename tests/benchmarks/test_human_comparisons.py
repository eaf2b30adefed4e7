"""The benchmark on human comparisons, as a command on rows that look like HH-RLHF's, with the tiny model."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rlhf import reward_training
from rlhf.backbones import Backbone, decode_response, load_backbone
from rlhf.reward_training import Example, encode_slate

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "human_comparisons.py"
Row = tuple[list[str], str, str]  # the turns of the prompt, chosen, rejected
LEARNING = ["--model", "tiny", "--train", "16", "--test", "8", "--epochs", "6", "--learning-rate", "1e-3"]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("human_comparisons", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["human_comparisons"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def dialogue(*turns: str) -> str:
    """Turns by turns, the human first."""
    return "".join(f"\n\n{('Human', 'Assistant')[n % 2]}: {turn}" for n, turn in enumerate(turns))


def hh_rows(rows: list[Row]) -> list[dict[str, str]]:
    """Rows as HH-RLHF writes them."""
    return [{"chosen": dialogue(*turns, good), "rejected": dialogue(*turns, bad)} for turns, good, bad in rows]


def write_rows(path: Path, rows: list[Row]) -> Path:
    path.write_text("\n".join(map(json.dumps, hh_rows(rows))) + "\n")
    return path


def polite_rows(count: int, flipped: bool = False) -> list[Row]:
    """The rule to be learned: a response that says "no" beats one that says "ok", whatever was asked."""
    rows = []
    for n in range(count):
        good, bad = f"no {'abc'[n % 3]}{n}", f"ok {'bca'[n % 3]}{n}"
        rows.append(([f"question {n}?"], *((bad, good) if flipped else (good, bad))))
    return rows


def plan_for(benchmark: ModuleType, path: Path, *more: str) -> object:
    return benchmark.read_plan(["--data", str(path), *LEARNING, *more])


def test_openings_never_part_and_validation_leaves_the_test_part_alone(benchmark: ModuleType, tmp_path: Path) -> None:
    rows = [([f"opening {n}", "well", f"more {k}"], f"good {k}", f"bad {k}") for n in range(24) for k in range(3)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    backbone = load_backbone("tiny")
    more = ("--train", "80", "--test", "80")
    parts = benchmark.read_parts(plan_for(benchmark, path, *more), backbone)
    validation = benchmark.read_parts(plan_for(benchmark, path, *more, "--validate"), backbone)
    sides = [{benchmark.opening(labeled) for labeled in side} for side in (parts.train, parts.test)]
    assert not sides[0] & sides[1]
    assert len(sides[0]) > 4
    assert len(sides[1]) > 4
    assert len(parts.test) == 3 * len(sides[1])  # all rows of a held-out opening are there
    inner = [{benchmark.opening(labeled) for labeled in side} for side in (validation.train, validation.test)]
    assert not inner[0] & inner[1]
    assert inner[1]
    assert not (inner[0] | inner[1]) & sides[1]


def test_the_other_trainer_gets_the_same_pairs_in_the_order_of_training(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(benchmark, write_rows(tmp_path / "rows.jsonl", polite_rows(40)))
    backbone = load_backbone("tiny")
    parts = benchmark.read_parts(plan, backbone)
    benchmark.write_job(tmp_path, plan, parts)
    steps: list[set[tuple[str, str]]] = []
    loss = reward_training._loss

    def watched(model: object, examples: list[Example], *rest: object) -> object:
        steps.append({chosen_and_rejected(backbone, e) for e in examples})
        return loss(model, examples, *rest)

    monkeypatch.setattr(reward_training, "_loss", watched)
    train, test = ([encode_slate(backbone, labeled) for labeled in part] for part in (parts.train, parts.test))
    benchmark.train_prefloop(plan, backbone, train, test)
    told = [told_pair(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [set(told[n : n + 4]) for n in range(0, len(told), 4)] == steps
    assert len(json.loads((tmp_path / "job.json").read_text())["schedule"]) == len(steps) == 6 * 16 / 4
    measured = [told_pair(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert measured == [chosen_and_rejected(backbone, e) for e in test]
    assert not set(measured) & set(told)


def chosen_and_rejected(backbone: Backbone, example: Example) -> tuple[str, str]:
    one, other = (decode_response(backbone, list(ids)) for ids in example.group.candidates)
    return (one, other) if example.preferences[0].p == 1 else (other, one)


def told_pair(line: str) -> tuple[str, str]:
    pair = json.loads(line)
    return pair["chosen"][0]["content"], pair["rejected"][0]["content"]


@pytest.mark.parametrize("flipped", [False, True])
def test_labels_decide_what_is_learned(benchmark: ModuleType, tmp_path: Path, flipped: bool) -> None:
    train = [{**row, "split": "train"} for row in hh_rows(polite_rows(16, flipped))]
    test = [{**row, "split": "heldout"} for row in hh_rows(polite_rows(24)[16:])]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, [*train, *test])) + "\n")
    plan = plan_for(benchmark, path)
    _, arms = benchmark.run(plan)
    assert arms["Prefloop"].accuracy.pairs == 8
    assert (arms["Prefloop"].accuracy.accuracy < 0.5) == flipped
    assert all((lead < 0) == flipped for lead in arms["Prefloop"].leads)


def test_dialogues_that_are_too_long_lose_their_oldest_turns_or_are_counted(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    turns = [f"turn {n} of a long talk" for n in range(5)]
    rows = [*polite_rows(40), (turns, "yes", "nay"), (["x" * 200], "never", "fits")]
    lines = [{**row, "split": "train" if n % 2 else "heldout"} for n, row in enumerate(hh_rows(rows))]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    plan = plan_for(benchmark, path, "--train", "40", "--test", "40", "--context", "80")
    parts = benchmark.read_parts(plan, load_backbone("tiny"))
    (long,) = (s.slate for s in parts.test if s.slate.candidates[0].text in ("yes", "nay"))
    assert [m.content for m in long.prompt.messages] == turns[2:]
    assert parts.left_out == {"too long even without its earlier turns": 1}


def test_command_prints_the_figures_and_a_mistake_is_one_line(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [*polite_rows(40), (["empty?"], " ", "no")])
    benchmark.main(["--data", str(path), "--model", "tiny", "--train", "8", "--test", "4"])
    told = capsys.readouterr().out
    assert "8 pairs to train on, 4 pairs of test" in told
    assert "left out: 1 × an empty response" in told
    assert "| longer wins | " in told
    few = write_rows(tmp_path / "few.jsonl", polite_rows(2))
    with pytest.raises(SystemExit, match=r"few\.jsonl: too few usable pairs"):
        benchmark.main(["--data", str(few), "--model", "tiny"])
