"""What sways a judge is shown while it runs, and what that costs does not grow."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import rich
from conftest import Reply, Scripted, completion, slate

from judge_command import Asking, EndpointOptions, judge
from judges import live
from judges.batch import label_slates
from judges.calibration import calibrate
from judges.config import load_judge
from judges.live import Live, in_words
from labeling.records import Label
from labeling.store import Store

DATA = Path(__file__).parents[2] / "data"


def test_the_line_stands_on_the_screen_before_the_run_is_over(
    scripted: Scripted,
    judge_file: Callable[..., Path],
    store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A judge that always names the first place; here each label is looked at."""
    monkeypatch.setattr(live, "EVERY", 0.0)
    monkeypatch.setattr(rich, "_console", None)  # what an earlier test may have left, which knew no terminal
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    scripted.reply = lambda request, n: Reply(completion("[[A]]").body, delay=0.1)
    judge(store.project, [str(judge_file(scripted.url, concurrency=1))], 4, False, EndpointOptions(), Asking())
    out = capsys.readouterr().out
    shown = out.index("first place +100% ± 0% · longer +0% ± 0% · both orders agree 0%")
    assert shown < out.index("4 tie")
    assert out.index("of the newest 3 slates: first place") < out.index("of the newest 4 slates: first place")


def test_the_live_figures_are_those_of_the_whole_ledger(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    """As long as no label was skipped: pairs, and rankings of three."""
    store.add_slates([slate(f"Name {n}.", "One.", "Two.", "Three.") for n in range(3)])
    scripted.reply = lambda request, n: completion(
        "[[B>A>C]]" if "answer_C" in json.dumps(request["messages"]) else "[[A]]" if n % 2 else "[[B]]"
    )
    judge = load_judge(judge_file(scripted.url), DATA)
    found = Live(judge.annotator.id, store)
    labels: list[Label] = []
    label_slates(judge, store.slates(), store, labels.append)
    for label in labels[:-1]:
        found.hear(label, 100.0)  # too soon after the start
    assert found.words == ""
    found.hear(labels[-1], 100.0 + live.EVERY)
    assert found.words == in_words(calibrate(judge.annotator.id, store, {}), 9)
    assert "first place in rankings +0% ± 0%" in found.words
    assert "all orders of a ranking agree 0%" in found.words


def test_a_look_reads_so_many_labels_and_keeps_so_many_slates(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST", 2)
    monkeypatch.setattr(live, "KEPT", 3)
    judge = load_judge(judge_file(scripted.url), DATA)
    found = Live(judge.annotator.id, store)
    read: list[int] = []
    plain = store.judge_calls
    monkeypatch.setattr(store, "judge_calls", lambda who, ids=None: (read.append(len(ids or ())), plain(who, ids))[1])
    labels: list[Label] = []
    label_slates(judge, store.slates(), store, labels.append)
    read.clear()
    for label in labels[:5]:
        found.hear(label, 100.0)
    found.hear(labels[5], 100.0 + live.EVERY)
    assert read == [2]
    assert found.words.startswith("of the newest 2 slates: ")
    for n in (0, 1):
        found.hear(labels[n], 100.0 + (n + 2) * live.EVERY)
    assert read == [2, 1, 1]
    assert found.words.startswith("of the newest 3 slates: ")
