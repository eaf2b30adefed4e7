"""What judging reports of a real small model that is known to follow the place: `python benchmarks/real_judge.py`.

SmolLM2-135M-Instruct behind a real server (llama.cpp by xllamacpp, on loopback) judges 24 pairs of a right and a wrong
answer by the rubric `concise`, in both orders, by schema and from token probabilities; and then a right answer and two
wrong ones, as rankings in three orders. Printed: what its ledger shows of it, and what became of its labels. Needs the
packages of `make test`.
"""

from __future__ import annotations

import datetime
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

# ruff: noqa: E402 - the packages lie beside this folder
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from judges.batch import label_slates
from judges.calibration import calibrate
from judges.config import load_judge
from labeling.agreement import Pair
from labeling.records import Candidate, Message, Prompt, Slate
from labeling.store import Store

# Country, capital, two cities that are not.
CAPITALS = """France Paris Lyon Nice|Spain Madrid Seville Bilbao|Italy Rome Milan Turin|Germany Berlin Munich Bonn
Poland Warsaw Lodz Gdansk|Austria Vienna Graz Linz|Norway Oslo Bergen Tromso|Sweden Stockholm Malmo Uppsala
Finland Helsinki Turku Oulu|Greece Athens Patras Corinth|Turkey Ankara Izmir Bursa|Egypt Cairo Luxor Aswan
Kenya Nairobi Mombasa Kisumu|Japan Tokyo Osaka Kyoto|China Beijing Shanghai Wuhan|India Delhi Mumbai Pune
Canada Ottawa Toronto Montreal|Cuba Havana Holguin Camaguey|Peru Lima Cusco Trujillo|Chile Santiago Arica Iquique
Brazil Brasilia Recife Salvador|Portugal Lisbon Porto Braga|Ireland Dublin Cork Galway|Russia Moscow Kazan Omsk"""
JUDGE = """kind = "endpoint"
name = "real"
rubric = "concise"
base_url = "http://127.0.0.1:{port}/v1"
model = "smollm2"
concurrency = 2
timeout_seconds = 300
max_tokens = 24
schema = true
[canaries]
each = 0
"""


def slates(cities: int) -> list[tuple[Slate, int]]:
    """One slate for each country, of so many answers, and where the right one stands in it."""
    made = []
    for number, line in enumerate(CAPITALS.replace("\n", "|").split("|")):
        country, *names = line.split()
        right = number % cities
        order = [*names[1 : 1 + right], names[0], *names[1 + right : cities]]
        answers = tuple(Candidate(f"The capital of {country} is {name}.") for name in order)
        made.append((Slate(Prompt((Message("user", f"What is the capital of {country}?"),)), answers), right))
    return made


@contextmanager
def server() -> Iterator[int]:
    """The port of a real server, once it answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    script = HERE.parent / "tests" / "judges" / "llama_server.py"
    silent = subprocess.DEVNULL
    with subprocess.Popen([sys.executable, str(script), str(port)], stdout=silent, stderr=silent) as process:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        try:
            yield port
        finally:
            process.kill()


def judged(port: int, cities: int) -> None:
    """Judge all slates of so many answers, and print what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "judge.toml"
        path.write_text(JUDGE.format(port=port))
        store = Store(Path(folder) / "project", create=True)
        asked = slates(cities)
        store.add_slates(slate for slate, _ in asked)
        judge = load_judge(path, HERE.parent / "data").checked(store)
        label_slates(judge, store.slates(), store)
        right = {slate.id: position for slate, position in asked}
        truth = {
            Pair(id, min(at, other), max(at, other)): 1 if at < other else -1
            for id, at in right.items()
            for other in range(cities)
            if other != at
        }
        print(f"\n{len(asked)} slates of {cities} answers")
        for line in (*judge.remarks, *calibrate(judge.annotator.id, store, truth).lines()):
            print(f"  {line}")
        labels = [label for label in store.labels() if label.ranks]
        contradicted = sum("contradict each other" in label.reason for label in labels)
        alone = sum(label.ranks is not None and label.ranks.count(1) == 1 for label in labels)
        best = sum(label.ranks is not None and label.ranks[right[label.slate_id]] == 1 for label in labels)
        print(f"  the orders contradict each other on {contradicted} of {len(labels)}")
        print(f"  one answer alone is best on {alone}; the right one is best, or tied for it, on {best}")
        given = [label.probability for label in labels if label.probability is not None]
        if given:
            chances = [p if right[label.slate_id] == 0 else 1 - p for label, p in zip(labels, given, strict=True)]
            print(f"  mean probability of the right answer: {sum(chances) / len(chances):.3f}")


if __name__ == "__main__":
    print(f"{datetime.date.today()}, xllamacpp {version('xllamacpp')}, openai {version('openai')}")
    with server() as port:
        for cities in (2, 3):
            judged(port, cities)
