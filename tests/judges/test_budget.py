"""Caps that hold, estimates that ask nothing, and prices that are data."""

import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Reply, Scripted, completion

from judges.batch import label_slates, waiting
from judges.batch_api import BatchApi
from judges.batch_files import BatchFiles
from judges.budget import Price, size_of
from judges.config import load_judge
from judges.endpoint_judge import EndpointJudge
from judges.estimate import estimate
from judges.prices import load_prices
from labeling.records import UserError
from labeling.store import Store

DATA = Path(__file__).parents[2] / "data"


def toml(path: Path, text: str) -> Path:
    path.write_text(path.read_text() + text)
    return path


def test_a_cap_on_calls_stops_cleanly_and_holds_over_resumed_runs(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    path = toml(judge_file(scripted.url), "[budget]\ncalls = 7\n")
    for _ in range(3):
        judged = label_slates(load_judge(path, DATA), store.slates(), store)
        assert "no room for another call (7 of 7 calls)" in judged.stopped
        assert len(scripted.requests) == 7
    labels = len(store.labels())
    assert 2 <= labels <= 3
    path = toml(judge_file(scripted.url), "[budget]\ncalls = 12\n")
    judged = label_slates(load_judge(path, DATA), store.slates(), store)
    assert judged.stopped == ""
    assert judged.outcomes.total() == 6 - labels
    assert len(scripted.requests) == 12  # the half-asked slate was not begun anew


@pytest.mark.parametrize("concurrency", [1, 6])
def test_a_cap_in_dollars_is_never_exceeded(
    concurrency: int, scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    """90 + 5 tokens at $1000 and $2000 a million are $0.10 a call; what is reserved for one is about $0.80."""
    scripted.reply = lambda request, n: Reply(completion("[[TIE]]").body, delay=0.05)
    text = "[budget]\nmoney = 1.5\n[price]\nprompt = 1000\ncompletion = 2000\n"
    judge = load_judge(toml(judge_file(scripted.url, concurrency=concurrency), text), DATA)
    judged = label_slates(judge, store.slates(), store)
    spent = store.judge_spending(judge.annotator.id)
    assert spent.cost == pytest.approx(0.1 * len(scripted.requests))
    assert spent.cost <= 1.5
    assert spent.cost + 1.0 > 1.5  # the most that one call can come to
    assert f"${spent.cost:.4f} of $1.5000" in judged.stopped


def test_a_cap_on_tokens(scripted: Scripted, judge_file: Callable[..., Path], store: Store) -> None:
    path = toml(judge_file(scripted.url, concurrency=1), "[budget]\ntokens = 1500\n")
    label_slates(load_judge(path, DATA), store.slates(), store)
    assert 1 <= len(scripted.requests) <= 15


def test_bytes_bound_tokens_from_above() -> None:
    """No tokenizer makes more tokens than bytes; a message adds a few of the template."""
    image = {"type": "image_url", "image_url": {"url": "data:…"}}
    size = size_of([{"role": "system", "content": "äb"}, {"content": [{"type": "text", "text": "xyz"}, image]}])
    assert (size.text, size.messages, size.pictures) == (6, 2, 1)
    assert size.most_tokens == 6 + 2 * 16 + 8500


def test_a_reservation_follows_the_limit_that_the_request_sets(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    """The check asks for more tokens than this judge's questions do, and is reserved at what it asks for."""
    scripted.reply = lambda request, n: Reply(b"", 401)
    judge = load_judge(judge_file(scripted.url, max_tokens=2), DATA)
    reserved: list[int] = []
    plain = store.reserve_call
    store.reserve_call = lambda call, *caps: reserved.append(call.completion_tokens) or plain(call, *caps)  # type: ignore[method-assign, func-returns-value]
    with pytest.raises(UserError, match="check the key"):
        judge.checked(store)
    assert reserved == [8]
    assert scripted.requests[0]["max_tokens"] == 8


def test_an_estimate_asks_nothing_and_is_right_once_there_are_calls(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    text = "[price]\nprompt = 1\ncompletion = 10\n"
    path = toml(judge_file(scripted.url, requests_per_minute=60_000, samples=2, temperature=1), text)
    judge = load_judge(path, DATA)
    assert isinstance(judge, EndpointJudge)

    def estimated() -> Any:
        who = judge.annotator.id
        return estimate(judge, waiting(store.slates(), who, store), store.usual_call(who), store)

    before = estimated()
    assert scripted.requests == []
    assert (before.slates, before.calls, before.measured) == (6, 24, False)
    assert before.completion_tokens == 24 * 12
    sent = sum(size_of(r["messages"]).text for r in scripted.requests)
    label_slates(judge, store.slates()[:5], store)
    after = estimated()
    assert (after.slates, after.calls, after.measured) == (1, 4, True)
    assert (after.prompt_tokens, after.completion_tokens) == (4 * 90, 4 * 5)
    assert after.cost == pytest.approx((4 * 90 * 1 + 4 * 5 * 10) / 1e6)
    sent = sum(size_of(r["messages"]).text for r in scripted.requests)
    assert before.prompt_tokens == pytest.approx(0.3 * sent * 6 / 5, rel=0.02)


def test_an_estimate_counts_the_canaries_that_are_still_to_be_asked(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six slates and a set of four canaries every third one, two orders each; before a batch there is one set."""
    monkeypatch.setattr("judges.estimate.EVERY", 3)
    monkeypatch.setattr("judges.endpoint_run.EVERY", 3)
    judge = load_judge(toml(judge_file(scripted.url, canaries=1), "[price]\nprompt = 0\ncompletion = 1000\n"), DATA)
    assert isinstance(judge, EndpointJudge)
    judge = replace(judge, canary_rules=replace(judge.canary_rules, max_success=1.0))

    def estimated(judge: EndpointJudge) -> Any:
        who = judge.annotator.id
        return estimate(judge, waiting(store.slates(), who, store), store.usual_call(who), store)

    ways = (None, BatchApi(judge.endpoint, judge.file), BatchFiles(tmp_path, "m"))
    live, batch, files = (estimated(replace(judge, batch=way)) for way in ways)
    assert [(e.calls, e.canary_calls) for e in (live, batch, files)] == [(28, 16), (20, 8), (28, 16)]
    replies = 12 * 1000 / 1e6  # twelve tokens each, in dollars
    assert [e.cost for e in (live, batch, files)] == pytest.approx([28 * replies, (8 + 12 / 2) * replies, 0])
    label_slates(judge, store.slates()[:2], store)
    assert len(scripted.requests) == 12
    assert (estimated(judge).calls, estimated(judge).canary_calls) == (16, 8)


def test_the_shipped_prices_have_a_date_and_are_found_by_host_and_snapshot() -> None:
    table = load_prices(DATA / "prices.toml")
    assert datetime.date(2026, 1, 1) < table.date
    openai = "https://api.openai.com/v1"
    assert table.price(openai, "gpt-4.1-mini") == Price(0.4, 1.6)
    assert table.price(openai, "gpt-4.1-mini-2025-04-14") == Price(0.4, 1.6)
    assert table.price("http://127.0.0.1:8080/v1", "gpt-4.1-mini") is None
    assert table.price(openai, "gpt-4.1-mini-mine") is None
    assert Price(0.4, 1.6).of(1_000_000, 500_000) == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[budget]\nmoney = 5\n", r"cap of \$5, but the price of 'scripted' is not known: say it in \[price\]"),
        ("[budget]\ncall = 5\n", r"\[budget\] call is not a known key \(known: money, tokens, calls\)"),
        ("[budget]\nmoney = -1\n", r"\[budget\] money = -1: "),
        ("[price]\nprompt = 1\n", r"\[price\] completion is missing"),
    ],
)
def test_a_mistake_in_budget_or_price(text: str, says: str, judge_file: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=says):
        load_judge(toml(judge_file("http://127.0.0.1:1/v1"), text), DATA)
