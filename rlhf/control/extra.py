"""The door to what needs the extra libraries for agents: they load behind it, and whoever lacks them is told so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from labeling.records import UserError
from labeling.segments import Segment


@contextmanager
def explained() -> Iterator[None]:
    """Turn an import that fails into one line that says what to install."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"agents need libraries that are missing ({error.name or error}): pip install 'prefloop[control]'"
        ) from error


def write_clip(segment: Segment, path: Path) -> None:
    """Make a clip's file; see `rlhf.control.rendering.write_clip`."""
    with explained():
        from rlhf.control.rendering import write_clip
    write_clip(segment, path)


def pictures(
    segments: Callable[[Iterable[str]], Mapping[str, Segment]],
) -> Callable[[str, int], Sequence[bytes]]:
    """The function that draws a clip (its id, how many pictures) for judges that see."""

    def draw(clip_id: str, count: int) -> Sequence[bytes]:
        with explained():
            from rlhf.control.rendering import png_frames
        found = segments([clip_id])
        if clip_id not in found:
            raise UserError(f"the project holds no segment {clip_id}")
        return png_frames(found[clip_id], count)

    return draw
