"""How near a judge comes to its endpoint's own limit, beside a plain asyncio.gather; and how much memory it takes.

    python benchmarks/judging.py speed ARM [RPM]     # judge, gather or distilabelN, then -told or -silent
    python benchmarks/judging.py memory SLATES
    python benchmarks/judging.py table

The endpoint is benchmarks/judging_endpoint.py in a process of its own. An arm asks 2,000 questions, about 1,000
slates in both orders, and an answer takes about 0.6 s. `share` is what the endpoint took a second, from the start of
labeling to its end, over what its limit allows. `gather` is the openai client with its own retries, and all questions
at once. `distilabelN` is distilabel with N questions in a batch (50 is its default), run by the Python that the
environment variable DISTILABEL_PYTHON names, in an environment with `distilabel[openai]` and `requests`; its seconds
are those of `Pipeline.run`. `memory` makes a project of so many slates, labels all of it by the criteria judge, walks
through all of it by the dry run of an endpoint judge, and labels all of it by that judge, whose endpoint has no limit
and answers at once; each in a process of its own, whose peak is told, and how many slates it left without an answer.
Results: benchmarks/results/judging-*.json.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

# ruff: noqa: E402 - the packages lie beside this folder
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from judges.batch import label_slates, waiting
from judges.config import load_judge
from judges.endpoint_judge import EndpointJudge
from judges.estimate import estimate
from judges.verdict import FINAL_LABELS
from labeling.records import Candidate, Message, Prompt, Slate
from labeling.store import Store

SLATES, RPM, LATENCY = 1000, 3000, 0.6  # slates and requests a minute; median seconds of an answer
NO_LIMIT = 1e9  # requests a minute
JUDGE = """kind = "endpoint"
name = "bench"
rubric = "brief"
base_url = "{url}"
model = "fake"
concurrency = 400
logprobs = false
[canaries]
each = 0
"""


def slates(count: int) -> Iterator[Slate]:
    for n in range(count):
        words = (f"A first answer about {n}. " * 8, f"Another one about {n}, said in other words. " * 6)
        yield Slate(Prompt((Message("user", f"What about {n}?"),)), tuple(Candidate(text) for text in words))


@contextmanager
def endpoint(rpm: float, headers: str, latency: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """The endpoint's address, and a mapping that holds its own counts afterwards."""
    command = [sys.executable, str(HERE / "judging_endpoint.py"), str(rpm), headers, str(latency)]
    counts: dict[str, Any] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1", counts
        process.stdin.write("\n")
        counts.update(json.loads(process.stdout.readline()))


def endpoint_judge(folder: Path, url: str) -> EndpointJudge:
    path = folder / "judge.toml"
    path.write_text(JUDGE.format(url=url))
    judge = load_judge(path, HERE.parent / "data")
    assert isinstance(judge, EndpointJudge)
    return judge


async def gather_all(judge: EndpointJudge, asked: list[Slate]) -> int:
    """Everything at once with the openai client as it comes; how many questions got no reply."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=judge.endpoint.base_url, api_key="none") as client:
        requests = [judge.request(question) for slate in asked for question in judge.questions(slate)]
        create = client.chat.completions.create
        calls = (create(model="fake", messages=r.messages, **r.settings) for r in requests)  # type: ignore[call-overload]
        replies = await asyncio.gather(*calls, return_exceptions=True)
    return sum(isinstance(reply, BaseException) for reply in replies)


def ask_by_distilabel(judge: EndpointJudge, asked: list[Slate], batch: int, folder: Path) -> dict[str, Any]:
    """What its own process says: seconds, and how many questions got no reply."""
    questions = folder / "questions.jsonl"
    requests = (judge.request(question) for slate in asked for question in judge.questions(slate))
    questions.write_text("".join(json.dumps({"messages": list(request.messages)}) + "\n" for request in requests))
    script = str(HERE / "judging_distilabel.py")
    command = [os.environ["DISTILABEL_PYTHON"], script, judge.endpoint.base_url, str(questions), str(batch)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def speed(arm: str, rpm: float) -> dict[str, Any]:
    how, headers = arm.split("-")
    with tempfile.TemporaryDirectory() as folder, endpoint(rpm, headers, LATENCY) as (url, counts):
        store = Store(Path(folder) / "project", create=True)
        store.add_slates(slates(SLATES))
        judge = endpoint_judge(Path(folder), url)
        import openai.resources.chat.completions  # noqa: F401 - importing it takes a second, in both arms

        started, cpu = time.monotonic(), time.process_time()
        if how.startswith("distilabel"):
            own = ask_by_distilabel(judge, list(slates(SLATES)), int(how.removeprefix("distilabel")), Path(folder))
        elif how == "judge":
            outcomes = label_slates(judge, store.waiting_slates(judge.annotator.id, FINAL_LABELS), store).outcomes
            lost = 2 * SLATES - len(store.judge_calls(judge.annotator.id)) + 2 * outcomes["endpoint_failure"]
        else:
            lost = asyncio.run(gather_all(judge, list(slates(SLATES))))
        seconds, cpu = time.monotonic() - started, time.process_time() - cpu
        if how.startswith("distilabel"):
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds, lost, cpu = own["seconds"], own["lost"], children.ru_utime + children.ru_stime
    share = counts["taken"] / seconds / (rpm / 60)
    return {**counts, "arm": arm, "rpm": rpm, "seconds": seconds, "cpu": cpu, "share": share, "lost": lost}


def memory(count: int) -> dict[str, Any]:
    result: dict[str, Any] = {"slates": count}
    with tempfile.TemporaryDirectory() as folder, endpoint(NO_LIMIT, "silent", 0.0) as (url, _):
        store = Store(Path(folder) / "project", create=True)
        store.add_slates(slates(count))
        endpoint_judge(Path(folder), url)
        for step in ("nothing", "criteria", "dry", "endpoint"):
            command = [sys.executable, __file__, "step", step, folder]
            result[step] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def step(what: str, folder: Path) -> dict[str, float]:
    """One pass over a project in this process: seconds, and the peak of its memory in MiB."""
    store, data = Store(folder / "project"), HERE.parent / "data"
    import openai.resources.chat.completions  # noqa: F401

    judge = load_judge(folder / "judge.toml" if what != "criteria" else data / "judges" / "criteria.toml", data)
    stream = store.waiting_slates(judge.annotator.id, FINAL_LABELS)
    started = time.monotonic()
    if what == "criteria":
        label_slates(judge, stream, store)
    elif what == "dry":
        assert isinstance(judge, EndpointJudge)
        who = judge.annotator.id
        estimate(judge, waiting(stream, who, store), store.usual_call(who), store)
    elif what == "endpoint":
        label_slates(judge, stream, store)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds, left = time.monotonic() - started, store.count_waiting(judge.annotator.id, FINAL_LABELS)
    return {"seconds": seconds, "cpu": time.process_time(), "peak": peak, "left": left}


def keep(name: str, result: dict[str, Any]) -> None:
    head = {"date": str(datetime.date.today()), "python": platform.python_version(), "openai": version("openai")}
    head["load"] = f"{os.getloadavg()[0]:.1f}"
    path = HERE / "results" / f"judging-{name}.json"
    path.write_text(json.dumps(head | result, indent=1) + "\n")
    print(json.dumps(result))


def table() -> None:
    results = {path.stem: json.loads(path.read_text()) for path in sorted((HERE / "results").glob("judging-*.json"))}
    print("| arm | limit a minute | seconds | share of the limit | refused | questions without a reply | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for r in results.values():
        if "arm" in r:
            figures = f"{r['seconds']:.1f} | {r['share']:.1%} | {r['refused']:,} | {r['lost']:,} | {r['cpu']:.1f}"
            print(f"| `{r['arm']}` | {r['rpm']:,.0f} | {figures} |")
    print("\n| slates | no pass | criteria judge, all | dry run, all | endpoint judge, all |")
    print("|---|---|---|---|---|")
    for r in sorted((r for r in results.values() if "slates" in r), key=lambda r: int(r["slates"])):
        cells = [f"{r[s]['peak']:.0f} MiB, {r[s]['seconds']:.0f} s" for s in ("criteria", "dry", "endpoint")]
        print(f"| {r['slates']:,} | {r['nothing']['peak']:.0f} MiB | {' | '.join(cells)} |")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["speed", arm, *rpm]:
            keep(arm, speed(arm, float(rpm[0]) if rpm else RPM))
        case ["memory", count]:
            keep(f"memory-{count}", memory(int(count)))
        case ["step", what, folder]:
            print(json.dumps(step(what, Path(folder))))
        case ["table"]:
            table()
        case _:
            sys.exit(__doc__)
