"""Work on hostile input in a process of its own: if it breaks there, nothing else does."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from labeling.records import UserError


def apart(generate: Callable[..., Iterator[Any]], *arguments: Any, broken: str) -> Iterator[Any]:
    """The values of `generate(*arguments)`, computed in another process and handed over as JSON.

    generate: a function of a module, so that the other process finds it by name. Raises the UserErrors that it raises,
    and UserError(broken) when the other process ends in the middle.
    """
    here, there = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_tell, args=(there, generate, arguments), daemon=True)
    process.start()
    there.close()
    try:
        while True:
            try:
                told = json.loads(here.recv_bytes())  # JSON and no pickle: who read hostile input is not trusted
            except (EOFError, ConnectionError) as error:
                raise UserError(broken) from error
            if "error" in told:
                raise UserError(told["error"])
            if "value" not in told:
                return
            yield told["value"]
    finally:
        here.close()
        process.kill()
        process.join()


def _tell(there: Connection, generate: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
    try:
        for value in generate(*arguments):
            there.send_bytes(json.dumps({"value": value}).encode())
        there.send_bytes(b"{}")
    except UserError as error:
        there.send_bytes(json.dumps({"error": str(error)}).encode())
    except BrokenPipeError:  # nobody listens any more
        pass


# A fork of a process without threads takes milliseconds; a fork of ours, which may have some, could hang.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_CONTEXT: Any = multiprocessing.get_context(_METHOD)
if _METHOD == "forkserver":
    _CONTEXT.set_forkserver_preload(["labeling.parquet_files", "pyarrow.parquet"])
