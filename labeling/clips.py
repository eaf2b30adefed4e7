"""The video files of a project: each is made when somebody asks, in a process of its own, and may be thrown away again.

What draws can crash, hang or leak. Here that costs one clip and never the server: one worker process makes all clips,
one after the other, and is started again when it died. The file of a clip is named by what it shows, so it is made
once, and one that was removed comes back the same.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from labeling.records import UserError, is_clip_id
from labeling.segments import Segment

# No clip takes longer, so an unfinished file that is older belongs to a process that was killed.
LIMIT_SECONDS = 120.0
# A file that was served or made so lately is in use: it stays, however much space the clips take.
IN_USE_SECONDS = 600.0
# So long after a clip could not be drawn nobody tries again: it would fail the same, and others would wait for it.
REMEMBERED_SECONDS = 300.0

Write = Callable[[Segment, Path], None]


class UnknownClip(UserError):
    """The project has no clip of this id."""


class NotDrawn(UserError):
    """The clip could not be drawn; trying again at once would end the same."""


@dataclass
class _Worker:
    """The process that makes clips, and our end of the pipe to it."""

    process: BaseProcess
    pipe: Connection


class ClipShelf:
    """The clips of a project as files `folder/<clip id>.mp4`. All methods may be called from any thread.

    segments: finds segments by id, as `Store.segments` does. write: makes the file, whole or not at all; it is sent to
    the worker, so it is a function of a module, and until it is done it may use `<path>.<process id>.part`.
    limit_bytes: how much the files may take before those that were served longest ago go.
    """

    def __init__(
        self,
        segments: Callable[[Sequence[str]], Mapping[str, Segment]],
        folder: Path,
        write: Write,
        limit_bytes: int = 1 << 30,
    ) -> None:
        self.segments, self.folder, self.write, self.limit_bytes = segments, folder, write, limit_bytes
        self._changed = threading.Condition()
        self._asked: OrderedDict[str, Future[Path]] = OrderedDict()  # somebody waits: first come, first served
        self._ahead: OrderedDict[str, Future[Path]] = OrderedDict()  # for later: the first is made next
        self._making: dict[str, Future[Path]] = {}
        self._failed: dict[str, tuple[float, str]] = {}  # when it may be tried again, and why it failed
        self._thread: threading.Thread | None = None
        self._worker: _Worker | None = None
        self._closed = False

    def video(self, clip_id: str) -> Path:
        """The file of a clip, which is made first, and before all others, where it is not there yet.

        Raises UnknownClip, or UserError when the clip cannot be made. What could not be drawn is told again for a while
        without another try.
        """
        _require_id(clip_id)
        path = self._path(clip_id)
        if _mark_used(path):
            return path
        with self._changed:
            if self._closed:
                raise UserError(f"{clip_id} was not made: the server is being stopped")
            if failure := self._recent_failure(clip_id):
                raise failure
            future = self._making.get(clip_id) or self._asked.get(clip_id)
            if future is None:
                future = self._asked[clip_id] = self._ahead.pop(clip_id, Future())
                self._go_on()
        return future.result()

    def prepare(self, clip_ids: Iterable[str]) -> None:
        """Have clips made in this order, before those that were prepared for earlier. Returns at once.

        What cannot be made is told to whoever asks for it by `video`.
        """
        missing = [i for i in dict.fromkeys(clip_ids) if is_clip_id(i) and not _mark_used(self._path(i))]
        with self._changed:
            for clip_id in reversed(missing):
                waits = clip_id in self._making or clip_id in self._asked
                if not self._closed and not waits and not self._recent_failure(clip_id):
                    self._ahead.setdefault(clip_id, Future())
                    self._ahead.move_to_end(clip_id, last=False)
                    self._go_on()

    def close(self) -> None:
        """Stop: clips that are being made or waiting are given up, and whoever waits for one gets a UserError."""
        with self._changed:
            self._closed = True
            worker, thread = self._worker, self._thread
            self._changed.notify_all()
        if worker is not None:
            worker.process.kill()
        if thread is not None:
            thread.join()

    def _recent_failure(self, clip_id: str) -> NotDrawn | None:
        """Why a clip could not be drawn of late; the caller holds the lock."""
        until, why = self._failed.get(clip_id, (0.0, ""))
        return NotDrawn(why) if time.monotonic() < until else None

    def _path(self, clip_id: str) -> Path:
        return self.folder / f"{clip_id}.mp4"

    def _go_on(self) -> None:
        """Wake our thread, and start it the first time; the caller holds the lock."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._make_all, name="clips", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _make_all(self) -> None:
        """The life of our thread: make what is wanted until the shelf is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked or self._ahead or self._closed)
                if self._closed:
                    break
                clip_id, future = (self._asked or self._ahead).popitem(last=False)
                self._making[clip_id] = future
            failure: Exception | None = None
            try:
                self._make(clip_id)
            except Exception as error:  # told to those who wait; the thread lives on for the other clips
                failure = error
            with self._changed:
                del self._making[clip_id]
                if isinstance(failure, NotDrawn):
                    self._failed[clip_id] = (time.monotonic() + REMEMBERED_SECONDS, str(failure))
            if failure is None:
                future.set_result(self._path(clip_id))
            else:
                future.set_exception(failure)
        self._stop_worker()
        for future in [*self._asked.values(), *self._ahead.values()]:
            future.set_exception(UserError("the clip was not made: the server is being stopped"))

    def _make(self, clip_id: str) -> None:
        """Have the worker make one file. Raises UnknownClip or UserError."""
        path = self._path(clip_id)
        if _mark_used(path):
            return
        segment = self.segments([clip_id]).get(clip_id)
        if segment is None:
            raise UnknownClip(f"there is no clip {clip_id!r} in this project")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder of the clips, {self.folder}: {error.strerror}") from error
        self._remove_strays()
        worker = self._living_worker()
        alarm = threading.Timer(LIMIT_SECONDS, worker.process.kill)
        alarm.start()
        began = time.monotonic()
        try:
            worker.pipe.send((segment, path))
            said = worker.pipe.recv()
        except (EOFError, OSError):
            late = time.monotonic() - began >= LIMIT_SECONDS
            status = self._stop_worker()
            why = f"took longer than {LIMIT_SECONDS:g} s" if late else f"crashed ({_ending(status)})"
            raise NotDrawn(f"{clip_id} was not made: the process that draws clips {why}") from None
        finally:
            alarm.cancel()
        if said:
            raise NotDrawn(said)
        self._make_room()

    def _living_worker(self) -> _Worker:
        """The worker; a new one where there is none or it died while nothing was to do."""
        with self._changed:
            if self._closed:
                raise UserError("the clip was not made: the server is being stopped")
            if self._worker is not None and not self._worker.process.is_alive():
                self._stop_worker()
            if self._worker is None:
                context = multiprocessing.get_context("spawn")
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(self.write, theirs), name="clips", daemon=True)
                process.start()
                theirs.close()
                self._worker = _Worker(process, ours)
            return self._worker

    def _stop_worker(self) -> int | None:
        """End the worker, remove what it left unfinished, and return its exit status."""
        if self._worker is None:
            return None
        process = self._worker.process
        process.join(1)  # one that died by itself can say why
        process.kill()
        process.join()
        self._worker.pipe.close()
        self._worker = None
        for part in self.folder.glob(f"*.{process.pid}.part"):
            part.unlink(missing_ok=True)
        return process.exitcode

    def _remove_strays(self) -> None:
        """Remove unfinished files that no living process can be writing."""
        for part in self.folder.glob("*.part"):
            if (stat := _stat(part)) and stat.st_mtime < time.time() - LIMIT_SECONDS:
                part.unlink(missing_ok=True)

    def _make_room(self) -> None:
        """Remove the files that were served longest ago until the rest is within the limit or in use."""
        files = [
            (stat.st_atime, stat.st_size, path) for path in self.folder.glob("clip_*.mp4") if (stat := _stat(path))
        ]
        excess = sum(size for _, size, _ in files) - self.limit_bytes
        for used, size, path in sorted(files):
            if excess <= 0 or used > time.time() - IN_USE_SECONDS:
                break
            path.unlink(missing_ok=True)
            excess -= size


def _require_id(clip_id: str) -> None:
    """No id that could name a file elsewhere is ever made into a path."""
    if not is_clip_id(clip_id):
        raise UnknownClip(f"{clip_id[:40]!r} is not the id of a clip")


def _mark_used(path: Path) -> bool:
    """Note on the file itself that it is used now: the time of access, which no cache looks at. False: no such file."""
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _stat(path: Path) -> os.stat_result | None:
    """What is known of a file; None where another process has just removed it."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _ending(status: int | None) -> str:
    """How a process ended, in words."""
    return f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"


def _work(write: Write, pipe: Connection) -> None:
    """The life of the worker: make one file after another, and say "" or what went wrong, until nobody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then stops us
    os.nice(10)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # graphics libraries chatter, for nobody to read
    os.dup2(silence, 2)
    while True:
        try:
            segment, path = pipe.recv()
        except EOFError:
            return
        try:
            write(segment, path)
            pipe.send("")
        except UserError as error:
            pipe.send(str(error))
        except Exception as error:  # whatever a library raises becomes one line for whoever asked
            line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            pipe.send(f"{segment.id} was not made ({line})")
