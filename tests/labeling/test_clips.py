"""A shelf of clips with a real worker process. What `write` does is told by the segment's environment."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from labeling import clips
from labeling.clips import ClipShelf, UnknownClip
from labeling.records import UserError
from labeling.segments import Segment
from labeling.store import Store


def write(segment: Segment, path: Path) -> None:
    """Do what the segment says, and leave a line in a log: the id and our process."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(b"v" * 1000)
    with (path.parent / "log.txt").open("a") as log:
        log.write(f"{segment.id} {os.getpid()} {os.nice(0)}\n")
    if segment.environment == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if segment.environment in ("slow", "refuse"):
        time.sleep(0.3)
    if segment.environment == "slower":
        time.sleep(1.5)
    if segment.environment == "hang":
        time.sleep(600)
    if segment.environment == "refuse":
        raise UserError("the snow is too deep: dig")
    if segment.environment == "bug":
        raise ValueError("an odd\nnumber")
    part.replace(path)


def segment(kind: str = "plain", seed: int = 0) -> Segment:
    return Segment(kind, seed, 0, np.zeros((3, 1), np.float32), np.zeros((3, 2), np.float32), 0.0)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "project", create=True)


@pytest.fixture
def shelf(store):
    shelf = ClipShelf(store.segments, store.project / "clips", write)
    yield shelf
    shelf.close()


def kept(store: Store, *kinds: str) -> list[str]:
    """Ids of new segments in the store, one of each kind."""
    segments = [segment(kind, seed) for seed, kind in enumerate(kinds)]
    store.add_segments(segments)
    return [s.id for s in segments]


def log(shelf: ClipShelf) -> list[list[str]]:
    path = shelf.folder / "log.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def refusal(shelf: ClipShelf, clip: str) -> str:
    with pytest.raises(UserError) as error:
        shelf.video(clip)
    return str(error.value)


def wait_until(true) -> None:
    for _ in range(400):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 20 s")


def test_a_clip_is_made_once_however_many_ask(store, shelf):
    (clip,) = kept(store, "slow")
    with ThreadPoolExecutor(20) as people:
        paths = list(people.map(lambda _: shelf.video(clip), range(20)))
    assert set(paths) == {shelf.folder / f"{clip}.mp4"}
    assert paths[0].stat().st_size == 1000
    assert shelf.video(clip) == paths[0]
    assert len(log(shelf)) == 1


def test_all_clips_are_made_by_one_other_process_that_gives_way(store, shelf):
    for clip in kept(store, "plain", "plain", "plain"):
        shelf.video(clip)
    processes = {(pid, nice) for _, pid, nice in log(shelf)}
    assert len(processes) == 1
    ((pid, nice),) = processes
    assert int(pid) != os.getpid()
    assert int(nice) == os.nice(0) + 10


def test_prepare_returns_at_once_and_the_newest_request_comes_first(store, shelf):
    first, *old, new, newer, urgent = kept(store, "slower", *["slow"] * 5)
    began = time.monotonic()
    shelf.prepare([first, *old])
    wait_until(lambda: log(shelf))
    shelf.prepare([new, newer])
    assert len(log(shelf)) == 1
    assert shelf.video(urgent).exists()
    assert time.monotonic() - began < 15
    wait_until(lambda: len(list(shelf.folder.glob("*.mp4"))) == 6)
    assert [clip for clip, *_ in log(shelf)] == [first, urgent, new, newer, *old]


def test_people_who_wait_are_served_in_turn(store, shelf):
    clips_asked = kept(store, *["slow"] * 4)
    threads = [threading.Thread(target=shelf.video, args=[clip], name=clip) for clip in clips_asked]
    for thread in threads:
        thread.start()
        wait_until(lambda asked=thread.name: asked in {*shelf._asked, *shelf._making})
    for thread in threads:
        thread.join()
    assert [clip for clip, *_ in log(shelf)] == clips_asked


@pytest.mark.parametrize("clip", ["clip_0123456789abcdef", "../../secret", "clip_0123456789abcdef/../x", ""])
def test_an_unknown_clip_is_told_apart(shelf, clip):
    shelf.folder.mkdir()
    (shelf.folder.parent.parent / "secret.mp4").write_bytes(b"not yours")
    with pytest.raises(UnknownClip):
        shelf.video(clip)
    shelf.prepare([clip])


def test_a_crash_costs_one_clip(store, shelf):
    crash, good = kept(store, "crash", "plain")
    with pytest.raises(UserError, match=rf"^{crash} was not made: .* crashed \(signal 11\)$"):
        shelf.video(crash)
    assert shelf.video(good).exists()
    assert not list(shelf.folder.glob("*.part"))


def test_a_worker_that_is_killed_in_the_middle_is_started_again(store, shelf):
    hang, good, other = kept(store, "hang", "plain", "plain")
    with ThreadPoolExecutor(1) as person:
        waiting = person.submit(shelf.video, hang)
        wait_until(lambda: log(shelf))
        os.kill(int(log(shelf)[0][1]), signal.SIGKILL)
        with pytest.raises(UserError, match="signal 9"):
            waiting.result()
    assert [path.name for path in shelf.folder.iterdir()] == ["log.txt"]
    assert shelf.video(good).exists()
    os.kill(int(log(shelf)[-1][1]), signal.SIGKILL)
    wait_until(lambda: not shelf._worker.process.is_alive())
    assert shelf.video(other).exists()


def test_what_hangs_is_ended(store, shelf, monkeypatch):
    hang, before, after = kept(store, "hang", "plain", "plain")
    shelf.video(before)  # so that the time limit need not cover the start of the worker
    monkeypatch.setattr(clips, "LIMIT_SECONDS", 0.5)
    with pytest.raises(UserError, match=f"^{hang} was not made: .* took longer than 0.5 s$"):
        shelf.video(hang)
    monkeypatch.undo()
    assert shelf.video(after).exists()
    assert not list(shelf.folder.glob("*.part"))


def test_an_error_is_one_line_and_is_told_to_all_who_wait(store, shelf):
    refuse, bug = kept(store, "refuse", "bug")
    with ThreadPoolExecutor(4) as people:
        asked = [people.submit(shelf.video, refuse)]
        wait_until(lambda: log(shelf))
        asked += [people.submit(shelf.video, refuse) for _ in range(3)]
        for answer in asked:
            with pytest.raises(UserError, match=r"^the snow is too deep: dig$"):
                answer.result()
    assert len(log(shelf)) == 1
    with pytest.raises(UserError, match=rf"^{bug} was not made \(ValueError: an odd number\)$"):
        shelf.video(bug)
    assert len({pid for _, pid, _ in log(shelf)}) == 1


def test_what_could_not_be_drawn_is_remembered_for_a_while(store, shelf, monkeypatch):
    crash, bug, good = kept(store, "crash", "bug", "plain")
    why = {clip: refusal(shelf, clip) for clip in (crash, bug)}
    for _ in range(3):
        shelf.prepare([crash, bug])
        assert {clip: refusal(shelf, clip) for clip in (crash, bug)} == why
    assert shelf.video(good).exists()
    assert [clip for clip, *_ in log(shelf)] == [crash, bug, good]
    monkeypatch.setattr(clips.time, "monotonic", lambda now=clips.time.monotonic: now() + clips.REMEMBERED_SECONDS)
    assert refusal(shelf, bug) == why[bug]
    assert [clip for clip, *_ in log(shelf)] == [crash, bug, good, bug]


def test_a_clip_that_was_unknown_is_made_once_it_is_there(store, shelf):
    late = segment("late")
    assert "there is no clip" in refusal(shelf, late.id)
    store.add_segments([late])
    assert shelf.video(late.id).exists()


def test_the_files_served_longest_ago_go_first(store):
    a, b, c, d = kept(store, *["plain"] * 4)
    shelf = ClipShelf(store.segments, store.project / "clips", write, limit_bytes=2500)
    try:
        paths = {clip: shelf.video(clip) for clip in (a, b, c)}
        assert all(path.exists() for path in paths.values()), "files in use stay, also beyond the limit"
        long_ago = time.time() - 2 * clips.IN_USE_SECONDS
        for age, clip in enumerate((a, b, c)):
            os.utime(paths[clip], (long_ago + age, paths[clip].stat().st_mtime))
        made = paths[a].stat().st_mtime_ns
        shelf.video(a)
        assert paths[a].stat().st_mtime_ns == made, "a browser's cache must not take it for another file"
        shelf.video(d)
        assert {path.stem for path in shelf.folder.glob("*.mp4")} == {a, d}
        assert shelf.video(b).exists(), "what was removed is made again"
    finally:
        shelf.close()


def test_what_a_killed_process_left_behind_is_removed(store, shelf):
    (clip,) = kept(store, "plain")
    shelf.folder.mkdir()
    old, living = shelf.folder / "clip_a.mp4.1.part", shelf.folder / "clip_b.mp4.2.part"
    for part in (old, living):
        part.write_bytes(b"half")
    os.utime(old, (0, time.time() - 2 * clips.LIMIT_SECONDS))
    shelf.video(clip)
    assert not old.exists()
    assert living.exists()


def test_closing_gives_up_what_is_not_made(store, shelf):
    hang, waiting, good = kept(store, "hang", "plain", "other")
    path = shelf.video(good)
    with ThreadPoolExecutor(2) as people:
        asked = [people.submit(shelf.video, hang)]
        wait_until(lambda: len(log(shelf)) == 2)
        asked.append(people.submit(shelf.video, waiting))
        wait_until(lambda: shelf._asked)
        shelf.close()
        for answer in asked:
            with pytest.raises(UserError):
                answer.result(timeout=5)
    assert shelf.video(good) == path
    with pytest.raises(UserError, match="being stopped"):
        shelf.video(waiting)
    shelf.prepare([waiting])
    assert not list(shelf.folder.glob("*.part"))


def test_a_folder_that_cannot_be_made_is_named(store, tmp_path):
    (clip,) = kept(store, "plain")
    (tmp_path / "file").write_text("")
    shelf = ClipShelf(store.segments, tmp_path / "file" / "clips", write)
    try:
        with pytest.raises(UserError, match="cannot make the folder of the clips"):
            shelf.video(clip)
    finally:
        shelf.close()
