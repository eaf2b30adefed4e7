"""A command in this process instead of one of its own, which would first load all that it needs: seconds each."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
from pathlib import Path

import app


def prefloop_here(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What a command prints and returns in that folder. For those that end by themselves and start nothing."""
    words, out, err = [str(a) for a in arguments], io.StringIO(), io.StringIO()
    handlers = {stop: signal.getsignal(stop) for stop in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = app.main(words)
    finally:
        for stop, handler in handlers.items():
            signal.signal(stop, handler)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
