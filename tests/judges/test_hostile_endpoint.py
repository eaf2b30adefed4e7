"""Whatever an endpoint sends, a slate ends with a label or with a typed failure and its reason."""

import asyncio
import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import Reply, Scripted, completion, free_port
from openai import APIStatusError

from judges import endpoint, endpoint_run
from judges.batch import label_slates, waiting
from judges.config import load_judge
from judges.endpoint_judge import EndpointJudge
from labeling.records import UserError
from labeling.store import Store

DATA = Path(__file__).parents[2] / "data"


def shown(request: dict[str, Any]) -> str:
    return str(request["messages"][-1]["content"])


def prefers(word: str) -> Callable[[dict[str, Any], int], Reply]:
    """A sound judge: names the letter under which the answer with `word` is shown."""

    def reply(request: dict[str, Any], n: int) -> Reply:
        _, _, after_b = shown(request).partition("<answer_B>")
        return completion("[[B]]" if word in after_b else "[[A]]")

    return reply


def test_a_sound_judge_is_asked_both_ways_and_believed(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    scripted.reply = prefers("do not like")
    judge = load_judge(judge_file(scripted.url), DATA)
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}
    for label in store.labels(annotator=judge.annotator.id):
        assert (label.ranks, label.probability) == ((2, 1), 0.0)
    calls = store.judge_calls(judge.annotator.id).values()
    assert len(scripted.requests) == len(calls) == 12
    assert {call.prompt_tokens for call in calls} == {90}
    orders = [tuple(json.loads(call.reply)["order"]) for call in calls]
    assert orders.count((0, 1)) == orders.count((1, 0)) == 6

    assert label_slates(judge, store.slates(), store).outcomes == {}
    assert len(scripted.requests) == 12  # nothing is asked or billed again


def test_log_probabilities_of_the_endpoint_become_the_label(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    top = [{"token": "A", "logprob": -0.2231436, "bytes": [65]}, {"token": "B", "logprob": -1.6094379, "bytes": [66]}]
    scripted.reply = lambda request, n: completion("A", logprobs={"content": [{**top[0], "top_logprobs": top}]})
    judge = load_judge(judge_file(scripted.url), DATA)
    label_slates(judge, store.slates(), store)
    label = store.labels(annotator=judge.annotator.id)[0]
    assert label.ranks == (1, 1)  # it prefers the first place
    assert label.probability == pytest.approx(0.5)  # (0.8 + 0.2) / 2
    assert scripted.requests[0]["top_logprobs"] == 20


def changed(reply: Reply, **head: Any) -> Reply:
    return Reply(json.dumps(json.loads(reply.body) | head).encode())


def message(**parts: Any) -> Reply:
    return completion(None, message={"role": "assistant", "content": "[[A]]", **parts})


@pytest.mark.parametrize(
    ("reply", "outcome", "reason"),
    [
        (completion("Both are nice."), "parse_failure", "Both are nice."),
        (completion(None), "parse_failure", "no text"),
        (completion("I weigh", "length"), "truncated", "I weigh"),
        (completion("x" * 500_000, "length"), "truncated", "xxx"),
        (completion("I'm sorry, I can't."), "refused", "sorry"),
        (completion("nul \x00 byte"), "parse_failure", "byte"),
        (completion("half a character \ud800"), "endpoint_failure", "no chat completion"),
        (Reply(b'{"choices": []}'), "endpoint_failure", "choices"),
        (Reply(b'{"choices": [{"message": '), "endpoint_failure", "no chat completion"),
        (Reply(b"<html>hello</html>", headers={"Content-Type": "text/html"}), "endpoint_failure", "no chat completion"),
        (Reply(b"data: {}\n\ndata: [DONE]\n\n"), "endpoint_failure", "no JSON: “data: {} data: [DONE]”"),
        (Reply(b""), "endpoint_failure", "(no JSON: nothing)"),
        (Reply(b'{"choices": "A"}'), "endpoint_failure", "choices"),
        (Reply(b"[" * 100_000), "endpoint_failure", "no chat completion"),
        (Reply(b" " * (5 << 20)), "endpoint_failure", "exceeds 4 MiB"),
        (Reply(b'{"error": {"message": "no\\nmodel", "code": 502}}'), "endpoint_failure", "is an error: “no model”"),
        (Reply(b'{"error": "no model"}'), "endpoint_failure", "is an error: “no model”"),
        (completion("", "error", error={"message": "the model died", "code": 502}), "endpoint_failure", "model died"),
        (
            changed(completion("[[A]]"), error={"message": "overloaded"}),
            "endpoint_failure",
            "is an error: “overloaded”",
        ),
        (Reply(b'{"error": {"message": "out of\\nmemory"}}', 500), "endpoint_failure", "status 500: “out of memory”"),
        (Reply(b'{"error": {"message": "too long"}}', 400), "endpoint_failure", "status 400: “too long”"),
    ],
)
def test_a_useless_reply_is_a_typed_failure(
    reply: Reply, outcome: str, reason: str, scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    scripted.reply = lambda request, n: reply
    judge = load_judge(judge_file(scripted.url, max_retries=0), DATA)
    slates = store.slates()[:1]
    assert label_slates(judge, slates, store).outcomes == {outcome: 1}
    (failed,) = store.labels(annotator=judge.annotator.id)
    assert failed.ranks is None
    assert reason in failed.reason
    assert "\n" not in failed.reason
    assert len(failed.reason) < 300

    assert [w.slate for w in waiting(slates, judge.annotator.id, store)] == slates
    scripted.reply = prefers("do not like")
    assert label_slates(judge, slates, store).outcomes == {"label": 1}
    (label,) = store.labels(annotator=judge.annotator.id)
    assert (label.ranks, label.supersedes) == ((2, 1), failed.client_key)


def top(token: dict[str, Any]) -> Reply:
    return completion("[[A]]", logprobs={"content": [{"token": "[[A]]", **token}]})


@pytest.mark.parametrize(
    ("reply", "counted"),
    [
        (changed(completion("[[A]]"), usage={}), False),
        (changed(completion("[[A]]"), usage={"prompt_tokens": -1, "completion_tokens": 5}), False),
        (changed(completion("[[A]]"), usage={"prompt_tokens": 90}), False),
        (changed(completion("[[A]]"), usage="many"), False),
        (changed(completion("[[A]]"), id=7, model=["x"]), True),
        (completion("[[A]]", finish=7), True),  # type: ignore[arg-type]
        (completion("[[A]]", logprobs="none"), True),
        (message(refusal=False), True),
        (message(refusal=[], reasoning_content="[[B]]", tool_calls=[]), True),
        (changed(completion("[[A]]"), error=None, model="another", id="as ever"), True),
        (top({"logprob": None, "top_logprobs": None}), True),
        (top({"top_logprobs": [{"token": "A", "logprob": None}]}), True),
        (completion([{"type": "thinking", "thinking": []}, {"type": "text", "text": "[["}, {"text": "A]]"}]), True),  # type: ignore[arg-type]
    ],
)
def test_a_verdict_stands_whatever_is_odd_about_what_comes_with_it(
    reply: Reply, counted: bool, scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    scripted.reply = lambda request, n: reply
    judge = load_judge(judge_file(scripted.url, max_retries=0), DATA)
    assert label_slates(judge, store.slates()[:1], store).outcomes == {"tie": 1}  # the first place, both times
    for call in store.judge_attempts(judge.annotator.id):
        if counted:
            assert (call.prompt_tokens, call.completion_tokens) == (90, 5)
        else:  # the most that it can have cost
            assert call.prompt_tokens > 90
            assert call.completion_tokens == 12


def test_a_rate_limit_in_a_body_of_status_200_is_one(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    storm = Reply(b'{"error": {"message": "slow down", "code": 429}}')
    scripted.reply = lambda request, n: storm if n <= 2 else completion("[[TIE]]")
    judge = load_judge(judge_file(scripted.url, max_retries=0), DATA)
    assert label_slates(judge, store.slates()[:1], store).outcomes == {"tie": 1}
    reasons = [c.reply for c in store.judge_attempts(judge.annotator.id) if c.outcome == "endpoint_failure"]
    assert set(reasons) == {"the reply is an error: “slow down”"}


def test_no_more_is_read_of_an_error_than_of_a_reply(
    scripted: Scripted, judge_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "MAX_REPLY_BYTES", 1000)
    long = b'{"error": {"message": "wrong"}}' + b" " * 5_000_000
    judge = load_judge(judge_file(scripted.url), DATA)
    assert isinstance(judge, EndpointJudge)

    async def main(body: bytes, headers: dict[str, str]) -> bytes:
        scripted.reply = lambda request, n: Reply(body, 400, headers)
        async with endpoint.open_client(judge.endpoint) as client:
            with pytest.raises(APIStatusError) as error:
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
            return error.value.response.content

    assert asyncio.run(main(long, {})) == long[:1000]
    assert asyncio.run(main(gzip.compress(long), {"Content-Encoding": "gzip"})) == long[:1000]
    assert asyncio.run(main(long[:50], {})) == long[:50]


def test_one_bad_order_is_no_preference_and_only_that_order_is_asked_again(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    as_stored = re.compile(r"<answer_A>\s*A red door")
    scripted.reply = lambda request, n: completion("[[A]]" if as_stored.search(shown(request)) else "well …")
    judge = load_judge(judge_file(scripted.url), DATA)
    assert label_slates(judge, store.slates()[:1], store).outcomes == {"parse_failure": 1}
    scripted.reply = lambda request, n: completion("[[B]]")
    assert label_slates(judge, store.slates()[:1], store).outcomes == {"label": 1}
    assert len(scripted.requests) == 3
    assert store.labels(annotator=judge.annotator.id)[0].ranks == (1, 2)


def test_retry_after_is_honoured(scripted: Scripted, judge_file: Callable[..., Path], store: Store) -> None:
    storm = Reply(b'{"error": {"message": "slow down"}}', 429, {"Retry-After": "1.2"})
    scripted.reply = lambda request, n: storm if n == 1 else completion("[[TIE]]")
    judge = load_judge(judge_file(scripted.url), DATA)
    started = time.monotonic()
    assert label_slates(judge, store.slates()[:1], store).outcomes == {"tie": 1}
    assert time.monotonic() - started > 1.2
    assert len(scripted.requests) == 4


def drained(remaining: int) -> dict[str, str]:
    """A limit of a day, all but so much of it used up."""
    return {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": f"{remaining}",
        "x-ratelimit-reset-requests": "24h0m0s",
    }


@pytest.mark.parametrize(
    ("last", "asks"),
    [
        (Reply(b'{"error": {"message": "enough for today"}}', 429, {"Retry-After": "86400"}), "24 hours .*for today"),
        (Reply(completion("[[TIE]]").body, 200, drained(0)), "1[45] minutes .*headers"),  # 86400 s / 100
    ],
)
def test_who_asks_for_a_pause_of_hours_ends_the_run_with_a_word_and_nothing_is_lost(
    last: Reply, asks: str, scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    scripted.reply = lambda request, n: last if len(scripted.requests) == 5 else completion("[[TIE]]")
    judge = load_judge(judge_file(scripted.url, concurrency=2), DATA)
    started = time.monotonic()
    with pytest.raises(UserError, match=f"{scripted.url} asks for a pause of {asks}.*goes on from here") as error:
        label_slates(judge, store.slates(), store)
    assert time.monotonic() - started < 10
    assert "\n" not in str(error.value)
    assert len(scripted.requests) < 12
    assert store.unsettled_calls(judge.annotator.id) == []
    assert {label.outcome for label in store.labels()} == {"ranked"}
    assert label_slates(judge, store.slates(), store).stopped == ""
    assert len(store.labels()) == 6
    assert len(scripted.requests) == 12 + (last.status != 200)  # nothing that was answered is asked again


def test_a_hung_request_holds_up_nothing_else(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    scripted.reply = lambda request, n: Reply(b"", delay=60) if "red" in str(request) else completion("[[TIE]]")
    judge = load_judge(judge_file(scripted.url, concurrency=3, timeout_seconds=1, max_retries=0), DATA)
    seen: list[str] = []
    started = time.monotonic()
    judged = label_slates(judge, store.slates(), store, lambda label: seen.append(label.outcome))
    assert judged.outcomes == {"tie": 5, "endpoint_failure": 1}
    assert seen[-1] == "endpoint_failure"  # the first slate ends last
    assert time.monotonic() - started < 10
    reasons = [label.reason for label in store.labels() if label.reason]
    assert reasons == ["no reply within 1 s"]


def test_a_reply_that_drips_in_byte_by_byte_is_given_up(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    scripted.reply = lambda request, n: Reply(completion("[[A]]").body, drip=0.2)
    judge = load_judge(judge_file(scripted.url, timeout_seconds=0.6, max_retries=0), DATA)
    started = time.monotonic()
    assert label_slates(judge, store.slates()[:1], store).outcomes == {"endpoint_failure": 1}
    assert time.monotonic() - started < 10


def test_an_endpoint_that_stops_answering_stops_the_batch(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_run, "FEWEST_FAILURES_TO_STOP", 4)
    scripted.reply = lambda request, n: Reply(b"{}", 503)
    judge = load_judge(judge_file(scripted.url, max_retries=0, concurrency=1), DATA)
    with pytest.raises(UserError, match=rf"{scripted.url} failed 4 times in a row \(status 503"):
        label_slates(judge, store.slates(), store)
    assert len(store.labels()) == 2
    scripted.reply = prefers("do not like")
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}
    assert len(store.labels()) == 6


def test_a_listwise_batch(scripted: Scripted, judge_file: Callable[..., Path], store: Store) -> None:
    from conftest import slate

    store.add_slates([slate("Name a colour.", "Red.", "Blue.", "Cat.")])

    def reply(request: dict[str, Any], n: int) -> Reply:
        cat = next(letter for letter in "ABC" if f"<answer_{letter}>\nCat." in shown(request))
        first, second = set("ABC") - {cat}
        return completion(f"[[{first} = {second} > {cat}]]")

    scripted.reply = reply
    judge = load_judge(judge_file(scripted.url), DATA)
    label_slates(judge, store.slates()[-1:], store)
    assert store.labels()[0].ranks == (1, 1, 2)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(b'{"error": {"message": "bad key"}}', 401), "“bad key”: check the key"),
        (
            Reply(b'{"error": {"message": "no such model"}}', 404),
            "“no such model”: check model = 'scripted' and base_url",
        ),
        (Reply(b'{"error": {"message": "hot?"}}', 400), "“hot\\?”: check model .* another temperature"),
        (Reply(b"<html>", headers={"Content-Type": "text/html"}), "no chat completion"),
    ],
)
def test_check_names_the_endpoint_and_the_cure(
    reply: Reply, says: str, scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    scripted.reply = lambda request, n: reply
    path = judge_file(scripted.url)
    with pytest.raises(UserError, match=says) as error:
        load_judge(path, DATA).checked(store)
    assert str(error.value).startswith(f"{path}: the endpoint {scripted.url} failed: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_check_says_that_nobody_answers(host: str, judge_file: Callable[..., Path], store: Store) -> None:
    judge = load_judge(judge_file(f"http://{host}:{free_port()}/v1"), DATA)
    with pytest.raises(UserError, match=f"{host}.*no connection.*start the server, or mend base_url"):
        judge.checked(store)


def test_the_key_comes_from_the_environment(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "k-123")
    judge = load_judge(judge_file(scripted.url, api_key_env="MY_KEY"), DATA)
    judge.checked(store)
    assert set(scripted.authorizations) == {"Bearer k-123"}


def test_what_a_server_says_in_place_of_http_is_cut_short(judge_file: Callable[..., Path], store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(b"what\tis this? " * 400 + b"\r\n\r\n")

        threading.Thread(target=babble, daemon=True).start()
        judge = load_judge(judge_file(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", max_retries=0), DATA)
        assert label_slates(judge, store.slates()[:1], store).outcomes == {"endpoint_failure": 1}
        listener.shutdown(socket.SHUT_RDWR)
    (failed,) = store.labels(annotator=judge.annotator.id)
    assert failed.reason.startswith("no connection (“")
    assert "what" in failed.reason
    assert len(failed.reason) < 150


@pytest.mark.parametrize("likeliest_first", [True, False])
def test_a_token_that_is_listed_twice_is_as_probable_as_its_likelier_mention(likeliest_first: bool) -> None:
    top = [{"token": "A", "logprob": -0.2}, {"token": "B", "logprob": -1.7}, {"token": "A", "logprob": -9.0}]
    content = [{"token": "A", "top_logprobs": top if likeliest_first else top[::-1]}]
    reply = endpoint.read_body(completion("A", logprobs={"content": content}).body, 0.1, 1)
    assert reply.tokens == (("A", {"A": -0.2, "B": -1.7}),)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/v1", "http://localhost:port/v1", "http://[::1/v1", "http://a b/"]
)
def test_an_address_that_cannot_be_called_is_said_when_the_file_is_read(
    url: str, judge_file: Callable[..., Path]
) -> None:
    path = judge_file(url)
    with pytest.raises(UserError, match=r"base_url: .* is no address that can be called: check its host") as error:
        load_judge(path, DATA)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(("key", "odd"), [("k–123", r"'\\u2013'"), ("k-1\n23", r"'\\n'"), ("k é", "' '")])
def test_a_key_that_no_header_can_hold_is_said_without_it(
    key: str, odd: str, judge_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    path = judge_file("http://127.0.0.1:1/v1", api_key_env="MY_KEY")
    with pytest.raises(UserError, match=rf"variable MY_KEY \(api_key_env\) holds {odd}, .*copy it again") as error:
        load_judge(path, DATA)
    assert str(error.value).startswith(f"{path}: ")
    assert key not in str(error.value)
