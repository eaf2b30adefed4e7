"""How people label in Label Studio, for benchmarks/labelers_peer.py: as it starts itself, on SQLite.

Each labeler is a user of their own with a token, and each task wants one annotation. A label is
`POST /api/tasks/ID/annotations/`, and `GET /api/projects/ID/next` gives the task after it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from labelers import ANSWER, Client, Label, Server, free_port

PACKAGE = "label-studio"
ADMIN = "0" * 40
CONFIG = """<View><Text name="question" value="$question"/><Text name="a" value="$a"/><Text name="b" value="$b"/>
<Choices name="better" toName="question"><Choice value="left"/><Choice value="right"/></Choices></View>"""
# Its own models make the users: there is no route that gives somebody else's token.
USERS = """
from organizations.models import Organization
from users.models import User
from rest_framework.authtoken.models import Token
for n in range({labelers}):
    user = User(email=f"labeler{{n}}@example.org", username=f"labeler{{n}}")
    user.set_unusable_password()
    user.active_organization = Organization.objects.first()
    user.save()
    Organization.objects.first().add_user(user)
    Token.objects.filter(user=user).delete()
    Token.objects.create(user=user, key=f"{{n:040d}}".replace("0", "a", 1))

"""  # the empty line ends the loop: it is typed into a shell


@contextmanager
def serving(command: str, labelers: int, items: int) -> Iterator[Server]:
    """A Label Studio with a project of so many tasks."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"LABEL_STUDIO_BASE_DATA_DIR": folder, "COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false"}
        environment = os.environ | own | {"LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "SENTRY_DSN": ""}
        port = free_port()
        start = ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
        admin = ["--username", "admin@example.org", "--password", "not a secret", "--user-token", ADMIN]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
        server = subprocess.Popen([command, *start, *admin], **quiet)  # type: ignore[call-overload]
        try:
            project = wait_for(port)
            ask(port, f"/api/projects/{project}/import", [{"data": texts(n)} for n in range(items)])
            shell = USERS.format(labelers=labelers)
            subprocess.run([command, "shell"], input=shell, text=True, check=True, **quiet)  # type: ignore[call-overload]
            people = ["Authorization: Token " + f"{n:040d}".replace("0", "a", 1) for n in range(labelers)]

            def kept() -> tuple[int, int]:
                now = ask(port, f"/api/projects/{project}")
                return int(now["total_annotations_number"]), int(now["num_tasks_with_annotations"])

            yield Server(server.pid, port, people, label_in(project), kept)
        finally:
            server.terminate()
            server.wait()


def label_in(project: int) -> Label:
    """How somebody labels in that project."""

    async def next_task(client: Client) -> Any:
        status, task = await client.ask("next", "GET", f"/api/projects/{project}/next")
        if status == 200:
            return task["id"]
        client.refused[status] += 1
        return None

    async def label(client: Client, think: float, until: float, chance: random.Random) -> None:
        await asyncio.sleep(chance.uniform(0, think))
        task = None
        while time.perf_counter() < until:
            if task is None:
                task = await next_task(client)
                continue
            await asyncio.sleep(chance.expovariate(1 / think) if think else 0)
            choice = {"choices": [chance.choice(["left", "right"])]}
            said = {"type": "choices", "from_name": "better", "to_name": "question", "value": choice}
            body = {"result": [said], "lead_time": think}
            with client.waits("click_to_next"):
                status, _ = await client.ask("annotate", "POST", f"/api/tasks/{task}/annotations/", body)
                if status == 201:
                    client.labels += 1
                else:
                    client.refused[status] += 1
                task = await next_task(client)

    return label


def ask(port: int, path: str, body: Any = None) -> dict[str, Any]:
    """Ask as its administrator."""
    headers = {"Authorization": f"Token {ADMIN}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=300) as reply:
        return dict(json.load(reply))


def wait_for(port: int) -> int:
    """The id of a new project, once the server answers: it makes its tables first."""
    limit = time.monotonic() + 400
    while True:
        try:
            body = {"title": "comparisons", "label_config": CONFIG, "maximum_annotations": 1}
            return int(ask(port, "/api/projects/", body)["id"])
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(2)


def texts(n: int) -> dict[str, str]:
    return {"question": f"Question {n}: {ANSWER}", "a": f"{n} {ANSWER}", "b": ANSWER}
