"""How people label in Potato, for benchmarks/labelers_peer.py: as it starts itself, on files.

Each labeler signs in without a password and has a session of their own; each item wants one annotation. A label is
`POST /updateinstance`, acknowledged after the labeler's file was written and flushed to disk, and `POST /annotate`
moves on and replies with the page of the next item. These are the fewest requests that do it: its own page saves at the
click and once more before it moves on, fetches the next page apart, and then asks for what is labeled on it.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labelers import ANSWER, Client, Label, Server, free_port

PACKAGE = "potato-annotation"
CONFIG: dict[str, Any] = {
    "annotation_task_name": "comparisons",
    "task_dir": ".",
    "output_annotation_dir": "annotations",
    "data_files": ["items.json"],
    "item_properties": {"id_key": "id", "text_key": "text"},
    "require_password": False,
    "num_annotators_per_item": 1,
    "max_annotations_per_user": -1,  # otherwise the first person is given all items at once
    "annotation_schemes": [
        {"annotation_type": "radio", "name": "better", "description": "Which is better?", "labels": ["left", "right"]}
    ],
}
ITEM = re.compile(rb'id="instance_id"[^>]* value="([^"]+)"')


@contextmanager
def serving(command: str, labelers: int, items: int) -> Iterator[Server]:
    """A Potato with so many items."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        texts = [{"id": f"item{n}", "text": f"Question {n}: {ANSWER}\n{n} {ANSWER}\n{ANSWER}"} for n in range(items)]
        (folder / "items.json").write_text(json.dumps(texts), encoding="utf-8")
        (folder / "config.yaml").write_text(json.dumps(CONFIG), encoding="utf-8")
        start = [command, "start", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(start, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            people = [sign_in(port, f"labeler{n}") for n in range(labelers)]
            yield Server(server.pid, port, people, label_in(set()), lambda: kept(folder / "annotations"))
        finally:
            server.terminate()
            server.wait()


def label_in(labeled: set[tuple[str, str]]) -> Label:
    """How somebody labels there; `labeled` takes who labeled which item, as a second save of it is no second label."""

    async def show(client: Client, method: str, body: dict[str, Any] | None = None) -> str | None:
        status, page = await client.ask("next", method, "/annotate", body)
        found = ITEM.search(page) if status == 200 and isinstance(page, bytes) else None
        if found:
            return found[1].decode()
        client.refused[status] += 1
        return None

    async def label(client: Client, think: float, until: float, chance: random.Random) -> None:
        await asyncio.sleep(chance.uniform(0, think))
        item = None
        while time.perf_counter() < until:
            if item is None:
                item = await show(client, "GET")
                continue
            await asyncio.sleep(chance.expovariate(1 / think) if think else 0)
            choice = chance.choice(["left", "right"])
            body = {"instance_id": item, "annotations": {f"better:{choice}": choice}}
            with client.waits("click_to_next"):
                status, said = await client.ask("annotate", "POST", "/updateinstance", body)
                if status == 200 and said["status"] == "success":
                    client.labels += (client.header, item) not in labeled
                    labeled.add((client.header, item))
                else:
                    client.refused[status] += 1
                item = await show(client, "POST", {"action": "next_instance", "instance_id": item})

    return label


def sign_in(port: int, name: str) -> str:
    """The header of a new labeler's session. The first one waits until the server answers."""
    body = urllib.parse.urlencode({"email": name}).encode()
    opener = urllib.request.build_opener(Unfollowed())
    limit = time.monotonic() + 120
    while True:
        try:
            opener.open(f"http://127.0.0.1:{port}/auth", body, timeout=30).close()
        except urllib.error.HTTPError as reply:
            if reply.code == 302:
                return f"Cookie: {reply.headers['set-cookie'].partition(';')[0]}"
            raise
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(1)


class Unfollowed(urllib.request.HTTPRedirectHandler):
    """The cookie is in the redirect itself."""

    def redirect_request(self, *_: Any) -> None:
        return None


def kept(folder: Path) -> tuple[int, int]:
    """How many labels its files hold, and on how many items."""
    states = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/user_state.json")]
    items = [item for state in states for item in state["instance_id_to_label_to_value"]]
    return len(items), len(set(items))
