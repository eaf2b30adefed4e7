"""What clips show travels with their labels: the same to the bit, and nothing else than that is let in."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labeling.exchange import add_gold, export_file, import_file, read_file
from labeling.exchange_segments import MOST_STEPS, read_segment, segment_object
from labeling.records import Annotator, Candidate, Label, Message, Prompt, Slate, UserError
from labeling.segments import Segment
from labeling.store import Store

ENVIRONMENT = json.dumps({"encoder": "none", "id": "Pendulum-v1", "max_steps": 60, "options": {"g": 9.5}})
CHANCE = np.random.default_rng(0)


def segment(seed: int = 3, start: int = 4, length: int = 6, kind: str = "float32") -> Segment:
    """A segment of numbers that no few digits write."""
    whole = np.dtype(kind).kind in "iu"
    count = start + length
    actions = CHANCE.integers(0, 3, count).astype(kind) if whole else CHANCE.normal(size=(count, 2)).astype(kind)
    steps = (CHANCE.normal(size=(length, 5)) * 10.0 ** CHANCE.integers(-30, 30, (length, 5))).astype(np.float32)
    return Segment(ENVIRONMENT, seed, start, actions, steps, float(CHANCE.normal()), True)


def same(one: Segment, other: Segment) -> bool:
    plain = ("id", "environment", "seed", "start", "gold", "ended")
    arrays = [(getattr(one, name), getattr(other, name)) for name in ("actions", "steps")]
    return all(getattr(one, name) == getattr(other, name) for name in plain) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in arrays
    )


@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "int32", "uint8"])
def test_a_segment_comes_back_the_same_to_the_bit(kind: str) -> None:
    for start in (0, 4):
        kept = segment(start=start, kind=kind)
        written = json.loads(json.dumps(segment_object(kept), allow_nan=False))
        assert same(read_segment(written, kept.id), kept)


def labelled(store: Store) -> tuple[Segment, Segment]:
    """Two clips and a label of them."""
    one, two = segment(1), segment(2)
    store.add_segments([one, two])
    candidates = tuple(Candidate(f"clip {s.seed}", "policy-1", clip=s.id) for s in (one, two))
    slate = Slate(Prompt((Message("user", "Which stands?"),)), candidates)
    store.add_slates([slate])
    store.add_annotator(Annotator("ann", "human"))
    store.add_labels([Label(slate.id, "ann", "ranked", "key", (2, 1))])
    return one, two


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.jsonl.gz", "labels.csv", "labels.parquet"])
def test_labels_of_clips_bring_what_they_show(tmp_path: Path, name: str) -> None:
    here, there = Store(tmp_path / "here", create=True), Store(tmp_path / "there", create=True)
    clips = labelled(here)
    export_file(here, tmp_path / name, "labels")
    report = import_file(there, tmp_path / name)
    what = "rows" if name.endswith("parquet") else "lines"
    assert str(report) == f"1 {what} read: 1 prompts, 1 slates and 1 labels are new; so are 2 clips"
    assert there.slates() == here.slates()
    found = there.segments([s.id for s in clips])
    assert all(same(found[s.id], s) for s in clips)
    again = import_file(there, tmp_path / name)
    assert (again.segments_new, again.slates_new, again.labels_new) == (0, 0, 0)


def test_clips_with_a_known_answer_bring_what_they_show_too(tmp_path: Path) -> None:
    here, there = Store(tmp_path / "here", create=True), Store(tmp_path / "there", create=True)
    clips = labelled(here)
    export_file(here, tmp_path / "labels.jsonl", "labels")
    report = add_gold(there, read_file(tmp_path / "labels.jsonl"))
    assert (report.gold_new, report.segments_new, report.labels_new) == (1, 2, 0)
    assert there.segments([s.id for s in clips]).keys() == {s.id for s in clips}


def test_a_clip_whose_segment_is_not_there_still_travels(tmp_path: Path) -> None:
    here, there = Store(tmp_path / "here", create=True), Store(tmp_path / "there", create=True)
    labelled(here)
    with here.writing() as db:
        db.execute("DELETE FROM segment")
    export_file(here, tmp_path / "labels.jsonl", "labels")
    assert import_file(there, tmp_path / "labels.jsonl").segments_new == 0
    assert there.labeled_slates() == here.labeled_slates()


Change = Callable[[dict[str, Any]], Any]
BAD: list[tuple[Change, str]] = [
    (lambda o: o.pop("steps"), "'steps' is missing"),
    (lambda o: o.update(code="x"), "a segment has no key 'code'"),
    (lambda o: o.update(actions_type="object"), "'actions_type' must be one of float32"),
    (lambda o: o.update(actions_type=["float32"]), "'actions_type' must be text"),
    (lambda o: o.update(seed=-1), "not negative"),
    (lambda o: o.update(start=-1), "not negative"),
    (lambda o: o.update(start=2**64), "'start' is too large"),
    (lambda o: o.update(start=5), "5 + 6 rows are not 10 actions"),
    (lambda o: o.update(steps=o["steps"][0]), "a row of 'steps' for each action"),
    (lambda o: o.update(actions=[]), f"'actions' has 1 to {MOST_STEPS} rows, not 0"),
    (lambda o: o.update(actions=[0] * (MOST_STEPS + 1)), f"not {MOST_STEPS + 1}"),
    (lambda o: o.update(actions=[[]] * 10), "rows of one length"),
    (lambda o: o["actions"][3].pop(), "rows of one length"),
    (lambda o: o["actions"].__setitem__(3, 0.5), "rows of one length"),
    (lambda o: o["actions"].__setitem__(3, {"0": 1, "1": 2}), "rows of one length"),
    (lambda o: o["actions"][3].__setitem__(0, "1"), "'actions' must hold numbers"),
    (lambda o: o["actions"][3].__setitem__(0, True), "'actions' must hold numbers"),
    (lambda o: o["actions"][3].__setitem__(0, [1.0]), "'actions' must hold numbers"),
    (lambda o: o["actions"][3].__setitem__(0, 10**400), "a number that float32 cannot hold"),
    (lambda o: o["steps"][3].__setitem__(0, 1e39), "a number that float32 cannot hold"),
    (lambda o: o.update(actions_type="uint8", actions=[256] * 10), "a number that uint8 cannot hold"),
    (lambda o: o.update(actions_type="int64", actions=[2**64] * 10), "a number that int64 cannot hold"),
    (lambda o: o.update(actions_type="int64", actions=[1.0] * 10), "'actions' must hold whole numbers"),
    (lambda o: o.update(gold="0"), "'gold' must be a number"),
    (lambda o: o.update(ended=1), "'ended' must be true or false"),
    (lambda o: o.update(environment="{}"), "'environment' must be an object"),
    (lambda o: o["environment"].update(id="antigravity:Fall-v0"), "'antigravity:Fall-v0' is not imported"),
    (lambda o: o["environment"].update(id="Pendulum-v1\n"), "is not imported"),
    (lambda o: o["environment"].update(max_steps=0), "'max_steps' must be at least 1"),
    (lambda o: o["environment"].update(encoder="code"), "'encoder' must be none, flatten or pixels"),
    (lambda o: o["environment"].update(entry_point="os:system"), "an environment has no key 'entry_point'"),
    (lambda o: o["environment"].update(options={"x": "y" * 4000}), "at most 4000 characters"),
    (lambda o: o.update(seed=4), "the segment is not what the clip"),
    (lambda o: o["actions"][3].__setitem__(0, 0.5), "the segment is not what the clip"),
]


@pytest.mark.parametrize(("change", "says"), BAD, ids=[f"{n}-{says[:40]}" for n, (_, says) in enumerate(BAD)])
def test_what_is_wrong_with_a_segment_is_said_in_one_line(tmp_path: Path, change: Change, says: str) -> None:
    here, there = Store(tmp_path / "here", create=True), Store(tmp_path / "there", create=True)
    labelled(here)
    export_file(here, tmp_path / "labels.jsonl", "labels")
    line = json.loads((tmp_path / "labels.jsonl").read_text())
    change(line["candidates"][1]["segment"])
    (tmp_path / "bad.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError) as error:
        import_file(there, tmp_path / "bad.jsonl")
    assert says in str(error.value)
    assert "bad.jsonl:1: " in str(error.value)
    assert "\n" not in str(error.value)
    assert not there.prompts()
    assert there.db["segment"].count == 0


def test_a_segment_that_is_here_already_stays_as_it_is(tmp_path: Path) -> None:
    """What the reward model reads is not part of a clip's id, and is not replaced by an import."""
    here, there = Store(tmp_path / "here", create=True), Store(tmp_path / "there", create=True)
    clips = labelled(here)
    export_file(here, tmp_path / "labels.jsonl", "labels")
    known = replace(clips[0], steps=clips[0].steps + 1)
    there.add_segments([known])
    assert import_file(there, tmp_path / "labels.jsonl").segments_new == 1
    assert same(there.segments([known.id])[known.id], known)
