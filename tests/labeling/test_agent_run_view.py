"""What the live page and the report say about a run of an agent: its goal, its clips, and its own words."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from labeling.pages.live import Snapshot, pieces
from labeling.report import report
from labeling.run_clips import evenly
from labeling.run_view import RunView, fold
from labeling.store import HumanLabel, RunEvent

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)> {{7*7}}'
GUIDE = "It turns over backward once\nand lands on its foot."


def clip(i: int) -> str:
    return f"clip_{i:016x}"


def run(iterations: int = 3, gold: bool = True, **about: Any) -> RunView:
    """An agent's run: every evaluation has a clip, and every iteration brings ten labels."""
    told = {"environment": "Hopper-v5", "model": "Hopper-v5", "recipe": "ppo", "iterations": 5}
    told |= {"question": "Which one flips better?", "guide": GUIDE, **about}
    events: list[tuple[int, str, dict[str, Any]]] = [(0, "run", told)]
    for i in range(iterations + 1):
        true = {"gold": 10.0 * i, "gold_low": 10.0 * i - 1, "gold_high": 10.0 * i + 1} if gold else {"gold": None}
        if i:
            fit = {"heldout_accuracy": 0.5 + 0.1 * i, "heldout_pairs": 12, "labels_by_kind": {"human": 10 * i}}
            events += [(i, "fit", fit), (i, "update", {"environment_steps": 4096 * i, "steps_per_second": 900.0})]
        evaluation: dict[str, Any] = {
            "split": "heldout",
            **true,
            "proxy": 2.5 * i,
            "length": 200.0,
            "clip": clip(i),
            "samples": [],
        }
        events.append((i, "evaluation", evaluation | {"environment_steps": 4096 * i}))
        if i:
            row = {"labels": 10 * i, "seconds": 60.0, "verdict": "not clear yet", "proxy_heldout": 2.5 * i}
            events.append((i, "iteration", row))
    return fold(RunView("r"), [RunEvent("r", i, kind, data, n, 100.0) for n, (i, kind, data) in enumerate(events, 1)])


def drawn(view: RunView) -> dict[str, str]:
    return pieces(Snapshot(view, (), {}), 100.0)


def videos(html: str) -> list[str]:
    return re.findall(r'<video[^>]*src="/clips/(clip_[0-9a-f]{16})\.mp4"', html)


def test_the_goal_is_told_with_labels_and_accuracy() -> None:
    goal = drawn(run())["goal"]
    assert "What to look for" in goal
    assert "Which one flips better?" in goal
    assert GUIDE in goal
    assert "<b>30</b><span>labels given so far" in goal
    assert "<b>80 %</b><span>of held-out comparisons (12 so far) predicted rightly" in goal  # 0.5 + 3 · 0.1


def test_the_newest_clip_is_large_and_plays_and_the_others_wait() -> None:
    large, strip = drawn(run())["clips"].split('<div class="strip">')
    assert videos(large) == [clip(3)]
    assert re.search(r"<video muted loop playsinline autoplay controls", large)
    assert videos(strip) == [clip(i) for i in range(4)]
    assert strip.count('preload="none"') == 4
    assert "autoplay" not in strip
    assert "Untrained <small>true return 0</small>" in strip
    assert "Iteration 2 <small>true return 20.0</small>" in strip


@pytest.mark.parametrize("iterations", [0, 11, 12, 40])
def test_the_strip_keeps_at_most_twelve_evenly_with_both_ends(iterations: int) -> None:
    shown = videos(drawn(run(iterations))["clips"].split('<div class="strip">')[1])
    assert len(shown) == min(12, iterations + 1)
    assert (shown[0], shown[-1]) == (clip(0), clip(iterations))
    steps = [int(b[5:], 16) - int(a[5:], 16) for a, b in pairwise(shown)]
    assert max(steps, default=1) - min(steps, default=1) <= 1


def test_evenly_spaced() -> None:
    assert evenly(list(range(7)), 4) == [0, 2, 4, 6]


def test_the_clips_are_the_same_piece_until_there_is_a_new_one() -> None:
    """A piece is sent again when it changes, and a video that is sent again starts again."""
    view = run()
    later = fold(view, [RunEvent("r", 4, "fit", {"heldout_accuracy": 0.9}, 99, 120.0)])
    assert drawn(later)["goal"] != drawn(view)["goal"]
    assert drawn(later)["clips"] == drawn(view)["clips"]
    evaluated = fold(later, [RunEvent("r", 4, "evaluation", {"clip": clip(4)}, 100, 121.0)])
    assert drawn(evaluated)["clips"] != drawn(view)["clips"]


def test_plots_show_the_true_return_only_where_there_is_one() -> None:
    known, unknown = drawn(run())["plots"], drawn(run(gold=False))["plots"]
    assert "True return (never seen by the agent)" in known
    assert "clearly above the untrained policy" in known
    assert "True return" not in unknown
    for text in (known, unknown):
        assert "Predicted return" in text
        assert re.search(r'Labels given</h3><p class="value">30 <small>\+20 since iteration 1', text)
        assert "80 %" in text
        assert "KL" not in text


def test_an_agent_is_spoken_of_in_its_own_words() -> None:
    view = fold(run(), [RunEvent("r", 4, "phase", {"phase": "sample", "state": "start"}, 99, 100.0)])
    page = drawn(view)
    assert "Running the agent" in page["status"]
    assert "On evaluation episodes" in page["latest"]
    assert "Untrained policy" in page["latest"]
    assert "Episode length, steps" in page["latest"]
    assert page["samples"] == ""
    for text in ("".join(page.values()), report(view, [])):
        shown = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).lower()
        for word in ("response", "held-out prompt", "untouched", "answers", "token"):
            assert word not in shown, word


def test_a_run_of_a_language_model_has_no_clips() -> None:
    page = drawn(run(environment=None))
    assert page["goal"] == page["clips"] == ""
    assert "Held-out gold" in page["plots"]
    assert "<video" not in "".join(page.values())


@pytest.mark.parametrize(("people", "told"), [(7, 30), (31, 31)])
def test_what_people_say_counts_at_once_and_not_only_when_the_iteration_is_told(people: int, told: int) -> None:
    elsewhere = HumanLabel("slate_0", "human:ann", "ranked", "train", False, None)
    ours = [HumanLabel(f"slate_{n}", "human:ann", "ranked", "train", True, None) for n in range(people)]
    page = pieces(Snapshot(run(), (*ours, elsewhere), {}), 100.0)
    assert f"<b>{told}</b><span>labels given so far" in page["goal"]


def test_before_the_first_clip_the_page_says_so() -> None:
    view = fold(RunView("r"), [RunEvent("r", 0, "run", {"environment": "Hopper-v5", "question": "Q?"}, 1, 100.0)])
    page = drawn(view)
    assert "No clip yet." in page["clips"]
    assert "<b>0</b><span>labels given so far" in page["goal"]
    assert "Starting: making the environment" in page["status"]


def test_the_report_names_the_clips_and_shows_no_video() -> None:
    text = report(run(), [])
    for i in range(4):
        assert f"<td>{clip(i)}</td>" in text
    assert GUIDE in text
    assert not re.search(r"<video|https?://|src=|url\(", text)


def test_hostile_text_becomes_neither_markup_nor_an_address() -> None:
    view = run(question=HOSTILE, guide=HOSTILE, environment=HOSTILE, model=HOSTILE)
    forged = [HOSTILE, "clip_../../../../etc", "clip_0123456789ABCDEF", {"a": 1}, 7]
    bad = [
        RunEvent("r", 4 + n, "evaluation", {"clip": c, "gold": HOSTILE}, 100 + n, 100.0) for n, c in enumerate(forged)
    ]
    view = fold(view, bad)
    for text in ("".join(drawn(view).values()), report(view, [])):
        assert "<script" not in text
        assert "<img" not in text
        assert text.count("&lt;script&gt;") >= 2
    assert set(videos(drawn(view)["clips"])) == {clip(i) for i in range(4)}
    assert drawn(view)["clips"].count("<video") == 5
