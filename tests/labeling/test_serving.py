"""`serve`: where the app listens, what it says there, and how it stops."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from labeling.records import UserError
from labeling.service import serve
from labeling.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


def fastest_reply(address: str, tries: int = 60) -> float:
    """The shortest time, in seconds, of later POSTs over one connection (a fresh one has its ACKs sent at once)."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        connection.request("POST", "/api/lease", b"{}", {"content-type": "application/json"})
        connection.getresponse().read()
        seconds.append(time.perf_counter() - start)
    connection.close()
    return min(seconds[tries // 2 :])


def wakings(pid: int) -> int:
    """How often the main thread of a process has waited and gone on, on Linux; 0 elsewhere."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status.read_text() if status.exists() else "", re.M)
    return int(found[1]) if found else 0


SERVER = "import sys; from labeling.service import serve; from labeling.store import Store;"
SERVER += "serve(Store(sys.argv[1]), '127.0.0.1', 0); print('closed', 'gradio' in sys.modules)"


TAKEN = """
import sys
from labeling.records import UserError
from labeling.service import serve
from labeling.store import Store
try:
    serve(Store(sys.argv[1]), "127.0.0.1", int(sys.argv[2]))
except UserError as error:
    print(error, "gradio" in sys.modules)
"""


def test_a_taken_port_is_one_line_before_gradio_loads(store):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [sys.executable, "-c", TAKEN, str(store.project), str(port)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=30)
    line = f"port {port} on 127.0.0.1 is taken: stop the other program or choose another with --port False\n"
    assert (said.stdout, said.stderr) == (line, "")


@pytest.mark.parametrize(
    ("host", "port", "complaint"),
    [("0.0.0.0", 7860, "without accounts, Prefloop serves this computer only"), ("127.0.0.1", 70000, "--port")],
)
def test_an_address_that_cannot_be_served_is_one_line(store, host, port, complaint):
    with pytest.raises(UserError, match=complaint):
        serve(store, host, port)


@pytest.mark.alone
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_stops_without_a_complaint(store, stop):
    command = [sys.executable, "-c", SERVER, str(store.project)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            address = re.fullmatch(r"Prefloop is at (http://127\.0\.0\.1:\d+)  \(Ctrl-C stops it\)\n", line)[1]
            with urllib.request.urlopen(f"{address}/api/progress", timeout=30) as reply:
                assert json.load(reply)["labels"] == 0
            for page in ("/", "/live"):
                from_elsewhere = urllib.request.Request(address + page, headers={"origin": "http://localhost:9999"})
                with urllib.request.urlopen(from_elsewhere, timeout=30) as reply:
                    assert "access-control-allow-origin" not in reply.headers
                    assert b"gradio" in reply.read()
            stream = urllib.request.urlopen(f"{address}/gradio_api/heartbeat/an-open-page", timeout=30)
            assert fastest_reply(address) < 0.035  # with Nagle's algorithm on, none takes less than 40 ms
            before = wakings(server.pid)
            time.sleep(0.5)
            assert wakings(server.pid) - before < 150  # Gradio's queue alone would be 1,000 a second
        finally:
            server.send_signal(stop)
        assert (server.communicate(timeout=20), server.returncode) == (("closed True\n", ""), 0)
        stream.close()
