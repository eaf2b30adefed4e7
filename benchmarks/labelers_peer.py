"""The workload of benchmarks/labelers.py on another labeling server, through its HTTP routes, and then on ours.

    python benchmarks/labelers_peer.py label-studio COMMAND [LABELERS] [SECONDS]
    python benchmarks/labelers_peer.py potato COMMAND [LABELERS] [SECONDS]

COMMAND is `label-studio` or `potato` of an environment of its own (`pip install label-studio`, `pip install
potato-annotation`). It runs as it starts itself. Both take two requests for a label, one that saves it and one that
gives the next item: `click_to_next` is what a labeler waits for both together, which is one request of ours. What is
refused is counted and not a label. Whoever waits for a reply 20 seconds after the time is over gives up, and counts as
having waited until then. At the end the server must hold all labels that it acknowledged.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import labelers_label_studio
import labelers_potato
from labelers import RESULTS, ROOT, THINK_SECONDS, measure, prefloop, slates_for

PATIENCE = 20.0
PEERS = {"label-studio": labelers_label_studio, "potato": labelers_potato}


def version_in(command: str, package: str) -> str:
    """The version of the package that the command belongs to."""
    ask = f"from importlib.metadata import version; print(version({package!r}))"
    python = str(Path(command).with_name("python"))
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    sys.path.insert(0, str(ROOT))
    name, command = sys.argv[1:3]
    labelers, seconds = (int(a) if a else b for a, b in zip([*sys.argv[3:5], "", ""], (200, 20), strict=False))
    peer = PEERS[name]
    result: dict[str, Any] = {"peer": f"{name} {version_in(command, peer.PACKAGE)}", "labelers": labelers}
    result |= {"date": date.today().isoformat(), "python": platform.python_version()}
    items = int(labelers * seconds / THINK_SECONDS) + int(seconds * 100)
    with peer.serving(command, labelers, items) as server:
        result[name] = measure(server, seconds, PATIENCE)
    with prefloop(labelers, slates_for(labelers, seconds)) as server:
        result["prefloop"] = measure(server, seconds)
    ours, theirs = (result[who]["saturation_labels_per_second"] for who in ("prefloop", name))
    result["times_as_many_labels_per_second"] = ours / theirs if theirs else None
    told = json.dumps(result, indent=1)
    (RESULTS / f"labelers-peer-{name}-{labelers}.json").write_text(told + "\n", encoding="utf-8")
    print(told)


if __name__ == "__main__":
    main()
