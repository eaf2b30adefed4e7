"""What the live page and the report say about a run, from events in a real store."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from labeling import run_panels
from labeling.pages.live import PIECES, Watch, pieces
from labeling.records import (
    Annotator,
    Candidate,
    Label,
    Lineage,
    Message,
    Outcome,
    Prompt,
    Slate,
    Split,
    UserError,
)
from labeling.report import write_report
from labeling.run_figures import Chart, line_chart, nice_ticks, plain
from labeling.run_view import Point, RunView, change, fold, is_stale, seconds_left, series, tally
from labeling.store import RunEvent, Store

HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script> {{7*7}} ${8*8} \ud800'


def event(iteration: int, kind: str, seq: int = 1, created: float = 100.0, **data: Any) -> RunEvent:
    return RunEvent("r", iteration, kind, data, seq, created)


def phase(iteration: int, name: str, state: str, created: float = 100.0, **data: Any) -> RunEvent:
    return event(iteration, "phase", created=created, phase=name, state=state, **data)


def slate(text: str, run: str = "r", split: Split = "train") -> Slate:
    return Slate(Prompt((Message("user", text),), split), (Candidate("a"), Candidate("b")), Lineage(run))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "project", create=True)
    made.add_annotator(Annotator("human:anna", "human"))
    made.add_annotator(Annotator("judge:rules", "judge"))
    return made


def label(
    store: Store, key: str, asked: Slate | None = None, annotator: str = "human:anna", outcome: Outcome = "ranked"
) -> None:
    asked = asked or slate(key)
    store.add_slates([asked])
    store.add_labels([Label(asked.id, annotator, outcome, key, (1, 2) if outcome == "ranked" else None)])


class Elements(HTMLParser):
    """Tag names and attribute names that a browser would make of a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


# Folding


def test_fold_in_two_steps_equals_fold_at_once() -> None:
    events = [
        event(0, "run", 1, iterations=3),
        event(0, "evaluation", 2, gold=0.2),
        phase(1, "sample", "start"),
        event(1, "fit", 4, heldout_accuracy=0.6),
        event(1, "evaluation", 5, gold=0.3),
    ]
    for cut in range(len(events)):
        assert fold(fold(RunView("r"), events[:cut]), events[cut:]) == fold(RunView("r"), events)


def test_an_iteration_done_again_replaces_itself_and_a_new_start_takes_back_the_end() -> None:
    view = fold(RunView("r"), [event(1, "evaluation", gold=0.9), event(1, "end", reason="stopped")])
    assert view.end == {"reason": "stopped"}
    view = fold(view, [event(0, "run"), event(1, "evaluation", gold=0.4)])
    assert view.end is None
    assert [p.y for p in series(view.evaluations, "gold")] == [0.4]


def test_unknown_figures_are_left_out_and_never_become_zero() -> None:
    rows = {0: {"gold": None}, 1: {"gold": float("nan")}, 2: {}, 3: {"gold": True}, 4: {"gold": 0}}
    assert series(rows, "gold") == [Point(4, 0.0)]


def test_the_phase_under_way_is_told_with_its_step_progress_and_clock() -> None:
    view = fold(
        RunView("r"),
        [
            event(0, "run", iterations=5, recipe="ppo"),
            phase(2, "sample", "start", 1000.0),
            phase(2, "sample", "end", 1020.0, done=8, total=8, seconds=20),
            phase(2, "label", "progress", 1030.0, done=3, total=12, seconds=10),
        ],
    )
    text = run_panels.status(view, now=1035.0)
    assert "Iteration 2 of 5" in text
    assert "Collecting labels" in text
    assert "step 2 of 6 · 3 of 12 · for 15 s · this iteration for 35 s" in text
    assert 'width:25%"' in text
    assert "Sample</b> <small>20 s" in text


def test_a_silent_loop_is_called_silent_until_it_ends() -> None:
    view = fold(RunView("r"), [event(0, "run", created=1000.0), phase(1, "fit", "start", 1000.0)])
    assert not is_stale(view, 1059.0)
    assert "The loop has not reported for 1 min 01 s" in run_panels.status(view, 1061.0)
    ended = fold(view, [event(1, "end", created=1000.0, reason="failed", message="the disk is full")])
    text = run_panels.status(ended, 5000.0)
    assert "not reported" not in text
    assert "Failed" in text
    assert "the disk is full" in text


def test_time_left_is_the_pace_of_the_last_three_iterations() -> None:
    done = [event(i, "iteration", seconds=s) for i, s in ((1, 900.0), (2, 100.0), (3, 110.0), (4, 90.0))]
    view = fold(RunView("r"), [event(0, "run", iterations=10), *done, phase(5, "sample", "start", 1000.0)])
    # Six iterations of 100 s are open, and 30 s of the first are spent.
    assert seconds_left(view, 1030.0) == pytest.approx(570.0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.31, 0.5, "above"), (0.29, 0.5, "unclear"), (0.0, 0.09, "below"), (None, 0.5, "unclear")],
)
def test_quality_moved_only_when_the_intervals_are_apart(low: float | None, high: float, verdict: str) -> None:
    found = change([Point(0, 0.2, 0.1, 0.3), Point(3, 0.4, low, high)])
    assert found is not None
    assert found.verdict == verdict


# People's labels


def test_labels_of_people_are_followed_into_the_fit_that_they_entered_first(store: Store) -> None:
    for key in ("a", "b", "c"):
        label(store, key)
    label(store, "j", annotator="judge:rules")
    label(store, "s", outcome="skip")
    label(store, "h", slate("held out", split="heldout"))
    label(store, "e", slate("elsewhere", run="other"))
    store.add_fit("r", 1, ["a", "j"])
    store.add_fit("r", 2, ["a", "b", "j"])
    store.add_fit("other", 1, ["e"])
    counts = tally(store.human_labels("r"))
    assert counts.given == 6
    assert counts.by_state == {"learned": 2, "waiting": 1, "empty": 1, "checking": 1, "elsewhere": 1}
    assert counts.by_fit == {1: 1, 2: 1}


def test_an_undone_label_is_no_longer_counted(store: Store) -> None:
    label(store, "a")
    (given,) = store.labels()
    store.add_labels([Label(given.slate_id, given.annotator, "undone", "u", supersedes="a")])
    assert store.human_labels("r") == []


def test_the_newest_fit_says_what_labels_counted_for_in_one_line() -> None:
    judge = {"annotator": "judge:j", "rubric": "brief", "flip_rate": 0.31, "source": "isotonic", "evidence": 46}
    judge |= {"audit": True, "calibration": "calibration_0123456789abcdef"}
    people = [{"annotator": f"human:{n}", "flip_rate": 0.1, "source": "answers", "evidence": n} for n in (20, 1)]
    declared = [{"annotator": f"oracle:{n}", "flip_rate": 0, "source": "declared"} for n in range(4)]
    line = (
        "Fit #2 took judge:j by the rubric brief with isotonic calibration abcdef on 46 audited slates, flip rate "
        "0.310 in the mean; human:20 with flip rate 0.100, by 20 checked answers; human:1 with flip rate 0.100, by 1 "
        "checked answer; oracle:0 with flip rate 0, as declared; oracle:1 with flip rate 0, as declared; 2 more."
    )
    shown = run_panels.sources(RunView("r", fits={1: {}, 2: {"trust": [*declared, *people, judge]}}))
    assert f'<p class="note">{line}</p>' in shown
    for broken in (None, "x", [7], {}):
        assert "took" not in run_panels.sources(RunView("r", fits={1: {"trust": broken}}))


def test_a_watch_shows_a_new_label_and_then_its_fit(store: Store) -> None:
    store.add_event(RunEvent("r", 0, "run", {"iterations": 2}))
    watch = Watch(store)
    assert watch.look("r").labels == ()
    label(store, "a", slate("Why is the sea salt?"))
    assert "Why is the sea salt?" in pieces(watch.look("r"), 0.0)["labels"]
    assert "waits for the next fit" in pieces(watch.look("r"), 0.0)["labels"]
    Store(store.project).add_fit("r", 2, ["a"])
    assert "entered fit #2" in pieces(watch.look("r"), 0.0)["labels"]


def test_runs_come_with_the_last_to_report_first(store: Store) -> None:
    for run in ("old", "new", "old"):
        store.add_event(RunEvent(run, 0, "run", {}))
    assert store.runs() == ["old", "new"]


# Figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.54321, "0.543"),
        (-1.5, "−1.50"),
        (12345.6, "12\u202f346"),
        (3e-5, "3.0·10⁻⁵"),
        (2.0, "2.00"),
        (2, "2"),
        (0.0425, "0.0425"),
        (0.0, "0"),
        (None, "–"),
        (float("inf"), "–"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, text: str) -> None:
    assert plain(value) == text


def test_ticks_are_round_and_span_the_figures() -> None:
    assert nice_ticks(0.13, 0.61) == [0.0, 0.2, 0.4, 0.6, 0.8]
    flat = nice_ticks(2.0, 2.0)
    assert flat[0] < 2.0 < flat[-1]
    error = nice_ticks(-1.1e-5, -1.1e-5)  # a single rounding error around 0 gets no scale of its own
    assert error[0] <= -5e-4
    assert error[-1] >= 5e-4


def test_a_higher_figure_is_drawn_higher_and_the_band_encloses_the_line() -> None:
    points = [Point(0, 1.0, 0.5, 1.5), Point(1, 2.0, 1.5, 2.5)]
    drawing = line_chart(Chart(points, 1, "gold", reference=1.0, reference_name="start"), "x")
    path = {name: re.search(rf'class="{name}" d="M([^"]+)"', drawing).group(1) for name in ("line gold", "band gold")}  # type: ignore[union-attr]
    (x0, y0), (x1, y1) = (map(float, p.split()) for p in path["line gold"].split("L"))
    assert x0 < x1
    assert y0 > y1  # SVG counts downwards
    band = [float(p.split()[1]) for p in path["band gold"].rstrip("Z").split("L")]
    assert band[0] < y0 < band[3]
    assert band[1] < y1 < band[2]
    assert "H428" in drawing  # the dashed line runs to the right edge, at the height of its figure
    assert f'class="reference" d="M46 {y0:.1f}H' in drawing


@pytest.mark.parametrize("points", [[], [Point(0, 0.0)], [Point(0, 0.0, -1.0, 1.0)], [Point(3, 1e9), Point(4, -1e9)]])
def test_a_chart_of_few_or_wild_points_holds_only_finite_places(points: list[Point]) -> None:
    drawing = line_chart(Chart(points, 0, "gold"), "x")
    assert "nan" not in drawing
    assert "inf" not in drawing
    assert len(re.findall('<circle class="dot', drawing)) == len(points)


# The page's pieces and the report


def hostile_run(store: Store) -> None:
    sample = {"prompt": HOSTILE, "response": HOSTILE, "gold": 0.5, "proxy": None}
    shared: dict[str, Any] = {"split": "heldout", "gold_low": 0.1, "gold_high": 0.3, "samples": [sample]}
    for kind, iteration, data in (
        ("run", 0, {"recipe": HOSTILE, "model": HOSTILE, "iterations": 2, "config": {HOSTILE: {"key": HOSTILE}}}),
        ("phase", 0, {"phase": HOSTILE, "state": "start", "note": HOSTILE}),
        ("evaluation", 0, {**shared, "gold": 0.2, HOSTILE: 1.0}),
        ("fit", 1, {"labels_by_kind": {"human": 3, "judge": 40}, "new_labels_by_kind": {"human": 3}, HOSTILE: 1}),
        ("update", 1, {HOSTILE: 0.25}),
        ("evaluation", 1, {**shared, "gold": 0.25}),
        ("iteration", 1, {"verdict": HOSTILE}),
        ("end", 1, {"reason": HOSTILE, "message": HOSTILE}),
    ):
        store.add_event(RunEvent(HOSTILE[:-1], iteration, kind, data))


def test_hostile_text_is_shown_and_never_becomes_markup(store: Store, tmp_path: Path) -> None:
    hostile_run(store)
    label(store, "a", slate(HOSTILE[:-1]))
    (run,) = store.runs()
    html = "".join(pieces(Watch(store).look(run), 1e12).values())
    html.encode("utf-8")  # a lone surrogate would not leave the server
    page = write_report(store, run, tmp_path / "r.html").read_text(encoding="utf-8")
    for text in (html, page):
        found = Elements(text)
        assert not {"img", "script"} & set(found.tags)
        assert not {name for name in found.attributes if name.startswith("on")}
        assert text.count("&lt;img src=x") >= 8


def test_every_piece_can_be_drawn_of_a_run_that_has_only_begun(store: Store) -> None:
    store.add_event(RunEvent("r", 0, "run", {}))
    drawn = pieces(Watch(store).look("r"), 0.0)
    assert set(drawn) == set(PIECES)
    assert "Starting: loading the model" in drawn["status"]
    assert drawn["plots"].count("No figure yet") == 4
    assert "prefloop loop RUN.toml" in pieces(None, 0.0)["status"]


def test_the_report_holds_every_number_and_needs_nothing_else(store: Store, tmp_path: Path) -> None:
    store.add_event(RunEvent("r", 0, "run", {"iterations": 1, "config": {"policy": {"learning_rate": 3e-5}}}))
    store.add_event(RunEvent("r", 0, "evaluation", {"gold": 0.111, "gold_low": 0.101, "gold_high": 0.121}))
    store.add_event(RunEvent("r", 1, "fit", {"pairs": 321, "heldout_accuracy": 0.637, "labels_by_kind": {"judge": 7}}))
    store.add_event(RunEvent("r", 1, "update", {"clip_fraction": 0.0425}))
    store.add_event(RunEvent("r", 1, "evaluation", {"gold": 0.222}))
    text = write_report(store, None, tmp_path / "r.html").read_text(encoding="utf-8")
    for shown in ("0.111 (0.101 to 0.121)", "0.222", "321", "0.637", "0.0425", "policy.learning_rate = 3e-05"):
        assert shown in text
    assert not re.search(r"https?://|src=|@import|url\(", text)


def test_a_report_that_cannot_be_written_leaves_the_old_one_and_no_scraps(store: Store, tmp_path: Path) -> None:
    store.add_event(RunEvent("r", 0, "run", {}))
    with pytest.raises(UserError, match="holds no run 'q': it has r"):
        write_report(store, "q", tmp_path / "r.html")
    taken = tmp_path / "taken"
    taken.mkdir()
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(UserError, match=r"cannot write the report .*taken"):
        write_report(store, "r", taken)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_report_of_a_project_without_runs_says_how_to_start_one(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="prefloop loop"):
        write_report(store, None, tmp_path / "r.html")
