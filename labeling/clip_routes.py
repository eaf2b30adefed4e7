"""The route that serves clips: a video file by the clip's id, made while the browser waits if need be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse

from labeling.clips import UnknownClip
from labeling.records import Slate, UserError, is_clip_id

# Threads of their own: whoever waits for a video must not keep an answer waiting.
WAITING_AT_ONCE = 16
# A clip's id is the hash of what it shows, so its file never changes.
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}


class Clips(Protocol):
    """Where the videos come from; `labeling.clips.ClipShelf` is one."""

    def video(self, clip_id: str) -> Path:
        """The file of a clip, once it is there. Raises UnknownClip, or UserError when it cannot be made."""

    def prepare(self, clip_ids: Sequence[str]) -> None:
        """Have clips made soon, in this order. Returns at once."""


def address(clip_id: str) -> str:
    """Where the browser finds a clip."""
    return f"/clips/{clip_id}.mp4"


def prepare(clips: Clips | None, upcoming: Sequence[tuple[Slate, Sequence[int]]]) -> None:
    """Have the clips of these slates made, in the order in which a person will see them."""
    ids = [slate.candidates[place].clip for slate, order in upcoming for place in order]
    if clips is not None and any(ids):
        clips.prepare([clip_id for clip_id in ids if clip_id])


def add_to(app: FastAPI, clips: Clips | None) -> None:
    """Serve clips under /clips. What is no clip, and every clip where there are none, is a 404."""
    limiter = CapacityLimiter(WAITING_AT_ONCE)

    @app.get("/clips/{name:path}")
    async def clip(name: str) -> FileResponse:
        clip_id = name.removesuffix(".mp4")
        if clips is None or not name.endswith(".mp4") or not is_clip_id(clip_id):
            raise HTTPException(404, f"there is no clip {name[:60]!r} here")
        try:
            path = await to_thread.run_sync(clips.video, clip_id, limiter=limiter)
        except UnknownClip as error:
            raise HTTPException(404, str(error)) from error
        except UserError as error:
            raise HTTPException(503, str(error)) from error
        return FileResponse(path, media_type="video/mp4", headers=FOREVER)
