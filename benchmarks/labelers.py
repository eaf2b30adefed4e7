"""Many people label at once: how long each waits, and how many labels a server takes when nobody pauses.

    python benchmarks/labelers.py [LABELERS] [SECONDS]

A real server process with real accounts on a fresh project; each simulated labeler has a session of their own and one
connection that stays open where the server lets it, as a browser has. One of them labels for two seconds first, so that
nobody pays for what a server loads at its first requests. Then everybody thinks, about 5 seconds (exponentially
distributed) between an answer and the next: milliseconds of each kind of request are told as p50/p95/p99. As the page
does, a labeler comes to hold a dozen comparisons ahead, which replies to `submit` fill up; their time is the most that
anybody waits from click to next slate. All come within 5 seconds; `settled_` is told apart what began 15 seconds after
the first came. Then nobody thinks: labels/s at saturation. A label counts when it was
acknowledged, which is after its commit is on disk (SQLite, WAL, synchronous=FULL); at the end the store must hold
exactly those. Clients and server share the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

THINK_SECONDS = 5.0
FIRST_SECONDS = 2.0
ARRIVAL_SECONDS = 15.0  # from the first who comes: the last comes after five
AHEAD, GROWTH = 12, 3  # as many slates as the page asks for, and how many times those that it has
SESSION_SECONDS = 3600.0
ANSWER = "An answer of some length, as models write them, with a reason and an example. " * 6


@dataclass
class Client:
    """One labeler: the header that says who they are, a connection, and what they waited for.

    took: when it began and how long it took, in seconds, by name.
    """

    port: int
    header: str
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    took: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    labels: int = 0
    refused: Counter[int] = field(default_factory=Counter)

    async def ask(self, name: str, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Send a request and read its reply: its status, and what it says. The connection stays open if it may."""
        data = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{self.header}\r\n{kind}"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        with self.waits(name):
            if self.streams is None:
                self.streams = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self.streams
            writer.write(head.encode() + data)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
            reply = await reader.readexactly(length)
        if "connection: close" in lines:
            self.close()
        told = any(line.startswith("content-type: application/json") for line in lines)
        return int(lines[0].split()[1]), json.loads(reply) if told else reply

    @contextmanager
    def waits(self, name: str) -> Iterator[None]:
        """Note how long it takes; who gives up has waited, too."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.took[name].append((began, time.perf_counter() - began))

    async def post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask one of our routes. Raises RuntimeError for anything but 200."""
        status, found = await self.ask(route, "POST", f"/api/{route}", body)
        if status != 200:
            raise RuntimeError(f"{status}: {found}")
        return dict(found)

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
        self.streams = None


async def label(client: Client, think: float, until: float, chance: random.Random) -> None:
    """Answer slate after slate until the time is over."""
    if think:
        await asyncio.sleep(chance.uniform(0, think))  # nobody starts in step with the others
    reply = await client.post("lease", {"ahead": 1})
    while reply["lease"] is not None and time.perf_counter() < until:
        if think:
            await asyncio.sleep(chance.expovariate(1 / think))
        ranks = [1, 2] if chance.random() < 0.5 else [2, 1]
        key = f"{chance.getrandbits(64):016x}"
        have = [slate["slate"] for slate in (reply["lease"], *reply["after"])]
        answer = {"client_key": key, "slate": have[0], "outcome": "ranked", "ranks": ranks, "seconds": think}
        reply = await client.post("submit", {**answer, "ahead": min(AHEAD, GROWTH * len(have)), "have": have})
        client.labels += reply["added"]


Label = Callable[[Client, float, float, random.Random], Awaitable[None]]


@dataclass(frozen=True)
class Server:
    """A server on which people label: its process, their headers, and how they do it.

    kept: how many labels it holds, and on how many items.
    """

    pid: int
    port: int
    people: Sequence[str]
    label: Label
    kept: Callable[[], tuple[int, int]]


async def crowd(
    clients: Sequence[Client], label: Label, think: float, seconds: float, seed: int, patience: float | None = None
) -> Sequence[Client]:
    """Everybody labels for that long, and waits for what they asked for; not longer than `patience` seconds more."""
    until = time.perf_counter() + seconds
    people = [asyncio.create_task(label(c, think, until, random.Random(f"{seed} {n}"))) for n, c in enumerate(clients)]
    done, waiting = await asyncio.wait(people, timeout=None if patience is None else seconds + patience)
    for person in waiting:
        person.cancel()
    for person in done:
        person.result()
    for client in clients:
        client.close()
    return clients


def prepare(project: Path, labelers: int, slates: int) -> list[str]:
    """A project with slates and people; returns a session's secret for each of them."""
    from labeling import accounts
    from labeling.records import Candidate, Message, Prompt, Slate
    from labeling.store import Store

    accounts.LOG_N = 4  # nobody signs in with a password here, and 200 hashes take a minute
    store = Store(project, create=True)
    store.add_slates(
        Slate(Prompt((Message("user", f"Question {n}: {ANSWER}"),)), (Candidate(f"{n} {ANSWER}"), Candidate(ANSWER)))
        for n in range(slates)
    )
    names = [f"labeler{n}" for n in range(labelers)]
    for name in names:
        store.join(store.invite("labeler", "benchmark"), name, "not a secret at all")
    return [store.open_session(name, "token", "benchmark", SESSION_SECONDS) for name in names]


def milliseconds(times: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    ordered = sorted(times)
    return {f"p{q}": 1000 * ordered[min(len(ordered) - 1, len(ordered) * q // 100)] for q in (50, 95, 99)}


def cpu_seconds(pid: int) -> float:
    """What the process and those that it started have used of the CPU; unlike the clock, not what others use."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


def slates_for(labelers: int, seconds: float) -> int:
    """More than they can label of ours."""
    return int(labelers * seconds / THINK_SECONDS) + int(seconds * 1000)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def prefloop(labelers: int, slates: int) -> Iterator[Server]:
    """Our own server, on a project of so many slates."""
    from labeling.store import Store

    with tempfile.TemporaryDirectory() as folder:
        project, port = Path(folder) / "project", free_port()
        people = [f"Authorization: Bearer {token}" for token in prepare(project, labelers, slates)]
        command = [sys.executable, str(ROOT / "app.py"), "serve", "--project", str(project), "--port", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            server.stdout.readline()  # it says where it is

            def kept() -> tuple[int, int]:
                labels = Store(project).labels()
                return len(labels), len({label.slate_id for label in labels})

            yield Server(server.pid, port, people, label, kept)
        finally:
            server.terminate()
            server.wait()


def measure(server: Server, seconds: float, patience: float | None = None) -> dict[str, Any]:
    """What people wait on this server, with pauses and without. Raises RuntimeError if it lost a label."""

    def load(think: float, lasting: float, seed: int, people: Sequence[str]) -> Sequence[Client]:
        clients = [Client(server.port, header) for header in people]
        return asyncio.run(crowd(clients, server.label, think, lasting, seed, patience))

    load_before = os.getloadavg()[0]
    first = load(0.0, FIRST_SECONDS, 2, server.people[:1])
    settled = time.perf_counter() + ARRIVAL_SECONDS
    calm = load(THINK_SECONDS, seconds, 0, server.people)
    began, cpu = time.perf_counter(), cpu_seconds(server.pid)
    rushed = load(0.0, seconds / 2, 1, server.people)
    taken, used = time.perf_counter() - began, cpu_seconds(server.pid) - cpu
    acknowledged = sum(c.labels for c in [*first, *calm, *rushed])
    kept, items = server.kept()
    if kept < acknowledged or (patience is None and kept != acknowledged):
        raise RuntimeError(f"{acknowledged} labels were acknowledged and {kept} are there")
    labels = sum(c.labels for c in rushed)
    return {
        **waited(calm),
        **{f"settled_{name}": figures for name, figures in waited(calm, settled).items()},
        "labels_per_second_with_pauses": sum(c.labels for c in calm) / seconds,
        "saturation_labels_per_second": labels / taken,
        "saturation_cpu_milliseconds_per_label": 1000 * used / max(1, labels),
        **{f"saturation_{name}": figures for name, figures in waited(rushed).items()},
        "refused": sum((c.refused for c in [*calm, *rushed]), Counter()),
        "labels": acknowledged,
        "labels_kept": kept,
        "items_labeled": items,
        "load_before": load_before,
    }


def waited(clients: Sequence[Client], since: float = 0.0) -> dict[str, dict[str, float]]:
    """Milliseconds of each kind of request that began after a moment, over all clients."""
    times: dict[str, list[float]] = defaultdict(list)
    for client in clients:
        for name, waits in client.took.items():
            times[name] += [seconds for began, seconds in waits if began >= since]
    return {name: milliseconds(waits) for name, waits in times.items() if waits}


def main() -> None:
    sys.path.insert(0, str(ROOT))
    labelers, seconds = (int(a) if a else b for a, b in zip([*sys.argv[1:3], "", ""], (200, 60), strict=False))
    with prefloop(labelers, slates_for(labelers, seconds)) as server:
        result = {"labelers": labelers, **measure(server, seconds)}
    result |= {"date": date.today().isoformat(), "python": platform.python_version(), "cores": os.cpu_count()}
    result |= {"versions": {name: version(name) for name in ("fastapi", "uvicorn", "sqlite-utils")}}
    (RESULTS / f"labelers-{labelers}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
