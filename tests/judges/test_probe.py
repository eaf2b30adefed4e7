"""What an endpoint cannot do is found out before anything is spent on slates, said, and done without."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LlamaServer, Reply, Scripted, completion, slate

from judges.batch import label_slates
from judges.calibration import calibrate
from judges.config import load_judge
from judges.endpoint_judge import EndpointJudge
from judges.probe import PROBED
from judges.reply import replies_in
from labeling.store import Store

DATA = Path(__file__).parents[2] / "data"
A = {"token": "A", "logprob": -0.1, "bytes": [65]}
B = {"token": "B", "logprob": -2.4, "bytes": [66]}


def able(request: dict[str, Any], n: int, seen: list[int]) -> Reply:
    """A server that heeds everything it is asked for."""
    if "response_format" in request:
        return completion('{"verdict": "B>A=C"}' if patterned(request) else '{"verdict": "A"}')
    if request.get("logprobs") or "n" in request:
        tokens = {"content": [{**A, "top_logprobs": [A, B]}]} if request.get("logprobs") else None
        body = json.loads(completion("A", logprobs=tokens).body)
        body["choices"] *= request.get("n", 1)
        return Reply(json.dumps(body).encode())
    if "seed" in request:
        return completion(f"letters of {request['seed']}")
    return completion("1 2 3 4", "length")


def patterned(request: dict[str, Any]) -> bool:
    """Whether a ranking is asked for by a pattern."""
    return "pattern" in json.dumps(request.get("response_format"))


def without(*ignored: str) -> Callable[[dict[str, Any], int], Reply]:
    """The same, but it ignores some fields without a word."""
    seen: list[int] = []

    def reply(request: dict[str, Any], n: int) -> Reply:
        seen.append(n)
        heard = {key: value for key, value in request.items() if key not in ignored}
        if "seed" in ignored and "seed" in request:
            return completion(f"letters {len(seen)}")
        limit = heard.get("max_tokens") or heard.get("max_completion_tokens")
        if limit is None:
            body = json.loads(completion(" ".join(map(str, range(100)))).body)
            body["usage"]["completion_tokens"] = 200
            return Reply(json.dumps(body).encode())
        return able(heard, n, seen)

    return reply


def rejects(*refused: str) -> Callable[[dict[str, Any], int], Reply]:
    """A server that calls what it does not know unprocessable."""
    return refuses(*refused, status=422)


def refuses(*refused: str, status: int = 400) -> Callable[[dict[str, Any], int], Reply]:
    def reply(request: dict[str, Any], n: int) -> Reply:
        for key in refused:
            if key in request:
                return Reply(json.dumps({"error": {"message": f"unsupported: {key}"}}).encode(), status)
        return able(request, n, [])

    return reply


WANTED = {"schema": True, "samples": 2, "temperature": 0.7, "n": True}


def checked(scripted: Scripted, judge_file: Callable[..., Path], store: Store, **settings: Any) -> EndpointJudge:
    judge = load_judge(judge_file(scripted.url, max_retries=0, **{**WANTED, **settings}), DATA).checked(store)
    assert isinstance(judge, EndpointJudge)
    return judge


def test_a_server_that_can_do_it_all(scripted: Scripted, judge_file: Callable[..., Path], store: Store) -> None:
    scripted.reply = without()
    judge = checked(scripted, judge_file, store)
    assert judge.remarks == ()
    assert (judge.endpoint.logprobs, judge.endpoint.schema, judge.endpoint.token_limit) == (True, True, "max_tokens")
    assert judge.endpoint.n is True
    assert judge.endpoint.list_schema is True
    assert len(scripted.requests) == 7
    assert store.judge_spending(judge.annotator.id).calls == 7  # the check is on the books too


THREE = ("A red door.", "I do not like red.", "Red.")


@pytest.mark.parametrize("refused", [True, False])
def test_a_server_that_knows_schemas_and_no_pattern_ranks_in_free_form(
    refused: bool, scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    """It says so, or it replies with any text; pairs keep their schema."""
    said = (
        Reply(b'{"error": {"message": "pattern is not supported"}}', 400)
        if refused
        else completion('{"verdict": "waves"}')
    )
    scripted.reply = lambda request, n: said if patterned(request) else able(request, n, [])
    judge = checked(scripted, judge_file, store)
    assert (judge.endpoint.schema, judge.endpoint.list_schema) == (True, False)
    assert ["(list_schema): the last verdict in a reply of free form" in remark for remark in judge.remarks] == [True]
    (pair, *_) = store.slates()
    assert ["response_format" in judge.request(q).settings for q in judge.questions(pair)] == [True] * 2
    for question in judge.questions(slate("Name something red.", *THREE)):
        assert "response_format" not in judge.request(question).settings
        assert "double square brackets" in question.messages[-1].content


def test_a_ranking_by_schema_is_a_weak_order_or_a_failure(
    scripted: Scripted, judge_file: Callable[..., Path], tmp_path: Path
) -> None:
    """What the pattern lets through: each letter once, ties, an abstention; and a letter twice, which is no ranking."""
    store = Store(tmp_path / "three", create=True)
    says = {"ties": "B>A=C", "twice": "A>A>B", "none": "ABSTAIN"}
    store.add_slates([slate(f"Name something, {name}.", *THREE) for name in says])
    asked: list[str] = []

    def reply(request: dict[str, Any], n: int) -> Reply:
        asked.append(request["response_format"]["json_schema"]["schema"]["properties"]["verdict"]["pattern"])
        [verdict] = [verdict for name, verdict in says.items() if f", {name}." in request["messages"][-1]["content"]]
        assert re.fullmatch(asked[-1], verdict)
        return completion(json.dumps({"verdict": verdict}))

    scripted.reply = reply
    judge = load_judge(judge_file(scripted.url, schema=True), DATA)
    outcomes = label_slates(judge, store.slates(), store).outcomes
    assert outcomes == {"tie": 1, "parse_failure": 1, "abstain": 1}  # the second place first in each order: tied
    assert len(asked) == 3 * 3
    (failed,) = (label for label in store.labels() if label.outcome == "parse_failure")
    assert failed.reason == "the verdict “A>A>B” does not name each of A to C once"
    for wrong in ("B>A", "B>A>D", "B>A>C=A", "B > A > C", "TIE", ""):
        assert not re.fullmatch(asked[0], wrong), wrong


@pytest.mark.parametrize("server", [without, refuses, rejects])
@pytest.mark.parametrize(
    ("field", "setting", "remark"),
    [
        ("logprobs", "logprobs", "token probabilities (logprobs): verdicts count as votes"),
        ("n", "n", "several replies at once (n): each sample is a call of its own"),
        ("response_format", "schema", "the JSON schema (schema): the last verdict in a reply of free form counts"),
    ],
)
def test_what_is_ignored_or_refused_is_done_without(
    server: Callable[[str], Callable[[dict[str, Any], int], Reply]],
    field: str,
    setting: str,
    remark: str,
    scripted: Scripted,
    judge_file: Callable[..., Path],
    store: Store,
) -> None:
    scripted.reply = server(field)
    judge = checked(scripted, judge_file, store)
    assert [remark in said for said in judge.remarks] == [True]
    assert getattr(judge.endpoint, setting) is False
    before = len(scripted.requests)
    scripted.reply = lambda request, n: completion("[[TIE]]")
    label_slates(judge, store.slates()[:1], store)
    for request in scripted.requests[before:]:
        assert field not in request


@pytest.mark.parametrize("server", [without, refuses, rejects])
def test_the_other_name_of_the_token_limit_is_tried(
    server: Callable[[str], Callable[[dict[str, Any], int], Reply]],
    scripted: Scripted,
    judge_file: Callable[..., Path],
    store: Store,
) -> None:
    scripted.reply = server("max_tokens")
    judge = checked(scripted, judge_file, store)
    assert judge.endpoint.token_limit == "max_completion_tokens"
    assert judge.remarks == ("it knows max_tokens not at all: max_completion_tokens is used (token_limit)",)
    assert "max_tokens" not in scripted.requests[-1]


def test_a_limit_that_is_ignored_under_both_names_is_said(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    scripted.reply = without("max_tokens", "max_completion_tokens")
    assert any("ignores the limit on tokens" in said for said in checked(scripted, judge_file, store).remarks)


def test_a_seed_that_is_ignored_is_said(scripted: Scripted, judge_file: Callable[..., Path], store: Store) -> None:
    scripted.reply = without("seed")
    judge = checked(scripted, judge_file, store, logprobs=False, schema=False, n=False)
    assert judge.remarks == ("it ignores seed: asking the same again may give another reply",)


@pytest.mark.parametrize("server", [refuses, rejects])
def test_a_seed_that_is_refused_is_done_without(
    server: Callable[[str], Callable[[dict[str, Any], int], Reply]],
    scripted: Scripted,
    judge_file: Callable[..., Path],
    store: Store,
) -> None:
    scripted.reply = server("seed")
    judge = checked(scripted, judge_file, store)
    assert judge.remarks == ("it refuses seed: samples go without, and asking again may give others",)
    assert (judge.endpoint.seed, judge.endpoint.logprobs, judge.endpoint.n) == (False, True, True)
    before = len(scripted.requests)
    scripted.reply = lambda request, n: several("[[A]]", "[[A]]")
    assert label_slates(judge, store.slates()[:1], store).outcomes == {"tie": 1}
    assert [("seed" in request, request["n"]) for request in scripted.requests[before:]] == [(False, 2)] * 2


def test_a_refusal_of_the_temperature_at_which_seeds_are_tried_is_none_of_seeds(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    cool = Reply(b'{"error": {"message": "temperature: at most 1"}}', 400)
    scripted.reply = lambda request, n: cool if request["temperature"] > 1 else able(request, n, [])
    judge = checked(scripted, judge_file, store)
    assert judge.endpoint.seed is True
    assert judge.remarks == ("it ignores seed: asking the same again may give another reply",)


def test_verdicts_by_schema_have_chances_and_samples_have_seeds(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    tokens = [{"token": text, "logprob": -0.1, "top_logprobs": []} for text in ('{"verdict": "', "A", '"}')]
    tokens[1]["top_logprobs"] = [{"token": "A", "logprob": -0.2231436}, {"token": "B", "logprob": -1.6094379}]
    scripted.reply = lambda request, n: completion('{"verdict": "A"}', logprobs={"content": tokens})
    judge = load_judge(judge_file(scripted.url, **{**WANTED, "n": False}), DATA)
    label_slates(judge, store.slates()[:1], store)
    (label,) = store.labels(annotator=judge.annotator.id)
    assert label.probability == pytest.approx(0.5)  # 0.8 for whichever is shown first
    assert "Reply as JSON" in scripted.requests[0]["messages"][-1]["content"]
    assert sorted(request["seed"] for request in scripted.requests) == [0, 0, 1, 1]
    orders = [json.loads(call.reply)["order"] for call in store.judge_calls(judge.annotator.id).values()]
    assert sorted(orders) == [[0, 1], [0, 1], [1, 0], [1, 0]]


def test_a_real_server(llama: LlamaServer, judge_file: Callable[..., Path], store: Store) -> None:
    """It heeds all of it, the pattern too; and both samples of a question come from one call, which bills it once."""
    wanted = {"schema": True, "samples": 2, "temperature": 0.7, "n": True}
    judge = load_judge(judge_file(llama.base_url, **wanted), DATA).checked(store)
    assert isinstance(judge, EndpointJudge)
    assert judge.remarks == ()
    assert judge.endpoint.list_schema is True
    label_slates(judge, store.slates()[:1], store)
    calls = [call for call in store.judge_calls(judge.annotator.id).values() if call.slate_id != PROBED]
    assert len(calls) == 2
    for call in calls:
        assert len(replies_in(call.reply)) == 2
        assert 2 <= call.completion_tokens <= 2 * 12
        assert call.prompt_tokens < 400


def several(*texts: str) -> Reply:
    body = json.loads(completion(texts[0]).body)
    body["choices"] = [{"index": i, "message": {"content": t}, "finish_reason": "stop"} for i, t in enumerate(texts)]
    return Reply(json.dumps(body).encode())


def test_several_replies_of_which_one_alone_has_probabilities_are_asked_one_by_one(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    def reply(request: dict[str, Any], n: int) -> Reply:
        body = json.loads(able(request, n, []).body)
        for choice in body["choices"][1:]:
            choice["logprobs"] = None
        return Reply(json.dumps(body).encode())

    scripted.reply = reply
    judge = checked(scripted, judge_file, store)
    assert (judge.endpoint.logprobs, judge.endpoint.n) == (True, False)


def test_a_call_that_gave_fewer_replies_than_were_asked_for_failed_and_is_made_again(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    scripted.reply = lambda request, n: several("[[A]]", "[[A]]")
    judge = load_judge(judge_file(scripted.url, samples=3, temperature=0.7, n=True), DATA)
    assert label_slates(judge, store.slates()[:1], store).outcomes == {"endpoint_failure": 1}
    (label,) = store.labels(annotator=judge.annotator.id)
    assert "2 of 3 replies came that were asked for at once: set n = false" in label.reason
    scripted.reply = lambda request, n: several("[[A]]", "[[A]]", "[[A]]")
    assert label_slates(judge, store.slates()[:1], store).outcomes == {"tie": 1}


def test_samples_of_one_call_count_each(scripted: Scripted, judge_file: Callable[..., Path], store: Store) -> None:
    """Three of four name the first one shown, in both orders: P = (3/4 + 1/4) / 2. One without a verdict spoils all."""
    scripted.reply = lambda request, n: several("[[A]]", "[[A]]", "[[B]]", "[[A]]" if n > 1 else "hm", "[[B]]")
    judge = load_judge(judge_file(scripted.url, samples=4, temperature=0.7, n=True), DATA)
    (first,) = store.slates()[:1]
    assert label_slates(judge, [first], store).outcomes == {"parse_failure": 1}
    assert label_slates(judge, [first], store).outcomes == {"tie": 1}
    assert [request["n"] for request in scripted.requests] == [4] * 4
    (label,) = store.labels(annotator=judge.annotator.id)
    assert label.probability == 0.5
    assert isinstance(judge, EndpointJudge)
    assert judge.request(judge.questions(first)[0]).most_reply_tokens == 4 * 12  # so much is reserved
    (most, *_) = store.judge_attempts(judge.annotator.id)
    assert len(replies_in(most.reply)) == 4  # more than was asked for does not count
    bias = calibrate(judge.annotator.id, store, {})
    assert (bias.samples.part, bias.samples.whole) == (6, 12)  # of four replies three agree, in both orders
    scripted.reply = lambda request, n: several("[[A]]", "[[B]]")
    label_slates(load_judge(judge_file(scripted.url, name="u"), DATA), [first], store)
    assert [len(replies_in(c.reply)) for c in store.judge_attempts(store.labels()[-1].annotator)] == [1, 1]
