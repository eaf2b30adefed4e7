"""The workload of benchmarks/labelers.py on Label Studio, through its HTTP API, beside ours in the same command.

    python benchmarks/labelers_peer.py LABEL_STUDIO_COMMAND [LABELERS] [SECONDS]

LABEL_STUDIO_COMMAND is `label-studio` of an environment of its own (`pip install label-studio`). It runs as it starts
itself, on SQLite; each simulated labeler is a user of their own with a token, and each task wants one annotation. A
label is `GET /api/projects/ID/next` and `POST /api/tasks/ID/annotations/`; both together are what a labeler waits from
click to next task, which is one request of ours. What is refused is counted and not a label. Whoever waits for a reply
20 seconds after the time is over gives up, and counts as having waited until then.
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
import urllib.request
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from labelers import ANSWER, RESULTS, ROOT, THINK_SECONDS, Client, Label, cpu_seconds, crowd, measure, milliseconds

ADMIN = "0" * 40
PATIENCE = 20.0
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


def token(n: int) -> str:
    """The token of labeler n."""
    return f"{n:040d}".replace("0", "a", 1)


def label_in(project: int) -> Label:
    """How somebody labels in that project."""

    async def label(client: Client, think: float, until: float, chance: random.Random) -> None:
        if think:
            await asyncio.sleep(chance.uniform(0, think))
        while time.perf_counter() < until:
            status, task = await client.ask("next", "GET", f"/api/projects/{project}/next")
            if status != 200:
                client.took[f"refused {status}"].append(0.0)
                continue
            if think:
                await asyncio.sleep(chance.expovariate(1 / think))
            choice = {"choices": [chance.choice(["left", "right"])]}
            said = {"type": "choices", "from_name": "better", "to_name": "question", "value": choice}
            body = {"result": [said], "lead_time": think}
            status, _ = await client.ask("annotate", "POST", f"/api/tasks/{task['id']}/annotations/", body)
            if status == 201:
                client.labels += 1
            else:
                client.took[f"refused {status}"].append(0.0)

    return label


def post(port: int, path: str, body: Any) -> dict[str, Any]:
    """Ask as its administrator."""
    headers = {"Authorization": f"Token {ADMIN}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as reply:
        return dict(json.load(reply))


def children(pid: int) -> list[int]:
    """The process and what it started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in listed for found in children(int(child)))]


def measure_peer(command: str, labelers: int, seconds: float) -> dict[str, Any]:
    """Both loads against one Label Studio."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"LABEL_STUDIO_BASE_DATA_DIR": folder, "COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false"}
        environment = os.environ | own | {"LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "SENTRY_DSN": ""}
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        start = ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
        admin = ["--username", "admin@example.org", "--password", "not a secret", "--user-token", ADMIN]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
        server = subprocess.Popen([command, *start, *admin], **quiet)  # type: ignore[call-overload]
        try:
            project = wait_for(port)
            tasks = int(labelers * seconds / THINK_SECONDS) + int(seconds * 50)
            post(port, f"/api/projects/{project}/import", [{"data": texts(n)} for n in range(tasks)])
            shell = USERS.format(labelers=labelers)
            subprocess.run([command, "shell"], input=shell, text=True, check=True, **quiet)  # type: ignore[call-overload]

            def clients() -> list[Client]:
                return [Client(port, f"Token {token(n)}") for n in range(labelers)]

            calm = asyncio.run(crowd(clients(), label_in(project), THINK_SECONDS, seconds, 0, PATIENCE))
            began, cpu = time.perf_counter(), sum(map(cpu_seconds, children(server.pid)))
            rushed = asyncio.run(crowd(clients(), label_in(project), 0.0, seconds / 2, 1, PATIENCE))
            rate = sum(c.labels for c in rushed) / (time.perf_counter() - began)
            used = sum(map(cpu_seconds, children(server.pid))) - cpu
        finally:
            server.terminate()
            server.wait()
    return {
        "next": milliseconds(times(calm, "next")),
        "annotate": milliseconds(times(calm, "annotate")),
        "labels_per_second_with_pauses": sum(c.labels for c in calm) / seconds,
        "saturation_labels_per_second": rate,
        "saturation_cpu_milliseconds_per_label": 1000 * used / max(1, sum(c.labels for c in rushed)),
        "refused": Counter(
            name for c in [*calm, *rushed] for name in c.took if "refused" in name for _ in c.took[name]
        ),
    }


def wait_for(port: int) -> int:
    """The id of a new project, once the server answers: it makes its tables first."""
    limit = time.monotonic() + 400
    while True:
        try:
            body = {"title": "comparisons", "label_config": CONFIG, "maximum_annotations": 1}
            return int(post(port, "/api/projects/", body)["id"])
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(2)


def texts(n: int) -> dict[str, str]:
    return {"question": f"Question {n}: {ANSWER}", "a": f"{n} {ANSWER}", "b": ANSWER}


def times(clients: Sequence[Client], name: str) -> list[float]:
    return [t for client in clients for t in client.took[name]]


def main() -> None:
    sys.path.insert(0, str(ROOT))
    command = sys.argv[1]
    labelers, seconds = (int(a) if a else b for a, b in zip([*sys.argv[2:4], "", ""], (200, 40), strict=False))
    ask = "from importlib.metadata import version; print(version('label-studio'))"
    its_python = [str(Path(command).with_name("python")), "-c", ask]
    its_version = subprocess.run(its_python, capture_output=True, text=True, check=True).stdout.strip()
    result: dict[str, Any] = {
        "labelers": labelers,
        "date": date.today().isoformat(),
        "python": platform.python_version(),
    }
    result["load_before"] = os.getloadavg()[0]
    result["label_studio"] = measure_peer(command, labelers, seconds)
    result["prefloop"] = measure(labelers, seconds)
    ours, theirs = (result[name]["saturation_labels_per_second"] for name in ("prefloop", "label_studio"))
    result["times_as_many_labels_per_second"] = ours / theirs if theirs else None
    result["label_studio_version"] = its_version
    (RESULTS / f"labelers-peer-{labelers}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
