"""Pictures of a segment: the episode is done again from its seed and actions, and drawn where the segment begins.

Nothing here opens a window. What MuJoCo draws is made plain (one sample a pixel, no shadows, no reflections), which on
a machine without a graphics card is six times as fast. A graphics library can crash or hang, so a program that must
stay alive renders in another process; `check_rendering` finds out beforehand whether it will work.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from labeling.records import UserError
from labeling.segments import Segment
from rlhf.control.environments import make, steps_per_second

MUJOCO_SIDE = 320
LARGEST_SIDE = 400
USUAL_FPS = 30
MOST_FPS = 60  # of a clip: where an environment takes more steps a second, only every n-th state is shown
ENCODER = "libx264"
# Every tenth frame can be shown alone and none waits for a later one: so a player shows exactly the frame asked for.
# Without looking ahead ("zerolatency") and in one thread, the same frames also become the same file.
ENCODING = {"preset": "veryfast", "tune": "zerolatency", "crf": "23", "g": "10", "threads": "1"}
TOLERANCE = 1e-3
FIRST_FRAME_SECONDS = 120
EGL_PROBE = "from mujoco.egl import GLContext; GLContext(8, 8).make_current()"
EGL_PROBE_SECONDS = 30


def render_frames(segment: Segment) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8: the state in which the segment begins, then the state after each of its steps.

    H and W are even and at most 400. Raises UserError when the environment cannot be made or drawn, or when the
    observations are not those that were recorded.
    """
    with _stage(segment.environment) as env:
        yield from _replay(env, segment, range(len(segment.steps) + 1))


def fps_of(env: gym.Env) -> int:
    """Steps a second in real time, as the environment states it; 30 where it does not."""
    stated = steps_per_second(env)
    return max(1, round(stated)) if stated else USUAL_FPS


def states_per_frame(fps: int) -> int:
    """n: a clip shows every n-th state, so that it has at most 60 frames a second, and more than 30 if it can."""
    return -(-fps // MOST_FPS)


def write_clip(segment: Segment, path: Path) -> None:
    """Write the segment as an H.264 video in real time. It appears under `path` whole or not at all.

    Of an environment with more than 60 steps a second it shows every n-th state (see `states_per_frame`), each for as
    long as n steps take.

    Until then it is called `<path>.<process id>.part`; only a killed process leaves that behind. Raises UserError as
    `render_frames` does, and without an encoder.
    """
    _require_encoder()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with _stage(segment.environment) as env:
            fps = fps_of(env)
            every = states_per_frame(fps)
            shown = range(0, len(segment.steps) + 1, every)
            _encode(_replay(env, segment, shown), Fraction(fps, every), part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def png_frames(segment: Segment, count: int) -> list[bytes]:
    """`count` frames (or all, if there are fewer), evenly spaced from the first to the last, as PNG files.

    No other states are drawn. Raises UserError as `render_frames` does.
    """
    last = len(segment.steps)
    places = np.linspace(0, last, min(count, last + 1)).round().astype(int).tolist()
    with _stage(segment.environment) as env:
        return [_png(frame) for frame in _replay(env, segment, set(places))]


def check_rendering(environment: str) -> None:
    """Draw one frame of the environment in another process, and see that there is a video encoder.

    Raises UserError with what is missing and how to get it. Whatever the graphics library does, the caller survives.
    """
    _require_encoder()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_draw_once, args=(environment, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        said = ours.recv() if ours.poll(FIRST_FRAME_SECONDS) else f"no frame within {FIRST_FRAME_SECONDS} s. {_cure()}"
    except EOFError:
        process.join()
        said = f"drawing the environment crashed (exit status {process.exitcode}). {_cure()}"
    finally:
        process.kill()
        process.join()
        ours.close()
    if said:
        raise UserError(said)


def _draw_once(environment: str, answer: Connection) -> None:
    """Say what stands in the way of drawing the environment: nothing (""), or one line."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # what graphics libraries print on their way down helps nobody
    os.dup2(silence, 2)
    try:
        with _stage(environment) as env:
            env.reset(seed=0)
            _picture(env)
        answer.send("")
    except UserError as error:
        answer.send(str(error))
    except Exception as error:  # somebody's environment may raise anything
        answer.send(f"the environment cannot be drawn ({_line(error)})")


@contextmanager
def _stage(environment: str) -> Iterator[gym.Env]:
    """The environment, ready to be drawn without a screen, and closed in the end."""
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
    try:
        env = make(environment, render=True)
    except UserError as error:
        if os.environ.get("MUJOCO_GL") and isinstance(error.__cause__, AttributeError | ImportError | RuntimeError):
            raise UserError(f"{error}. {_cure()}") from error  # MuJoCo loads what was chosen when it is imported
        raise
    try:
        if renderer := _mujoco_renderer(env):
            _choose_graphics_library()
            _make_plain(renderer, env)
        yield env
    finally:
        _close(env)


def _replay(env: gym.Env, segment: Segment, shown: Container[int]) -> Iterator[np.ndarray]:
    """Do the episode again, compare each observation with the recorded one, and draw the states `shown` of 0 … T."""
    observation, _ = env.reset(seed=segment.seed)
    for action in segment.actions[: segment.start]:
        observation, *_ = env.step(action)
    for place, (recorded, action) in enumerate(zip(segment.steps, segment.actions[segment.start :], strict=True)):
        if not np.allclose(observation, recorded[: len(observation)], rtol=TOLERANCE, atol=TOLERANCE):
            raise UserError(
                f"{segment.id} ({_name(env)}, seed {segment.seed}) did not come back the same from its seed and "
                "actions: the clip would show something else. Use the versions of gymnasium and mujoco that made it"
            )
        if place in shown:
            yield _picture(env)
        observation, *_ = env.step(action)
    if len(segment.steps) in shown:
        yield _picture(env)


def _picture(env: gym.Env) -> np.ndarray:
    """What the environment looks like now, with even sides of at most 400 pixels."""
    try:
        frame = env.render()
    except Exception as error:  # whatever a graphics library or somebody's environment may raise
        cure = f". {_cure()}" if _mujoco_renderer(env) else ""
        raise UserError(f"{_name(env)} cannot be drawn ({_line(error)}){cure}") from error
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise UserError(f"{_name(env)} draws no (height, width, 3) uint8 picture: people need an environment that does")
    height, width = frame.shape[:2]
    scale = min(1.0, LARGEST_SIDE / max(height, width))
    new_width, new_height = _even(width * scale), _even(height * scale)
    if (new_width, new_height) == (width, height):
        return frame
    import av

    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
    return picture.reformat(new_width, new_height, interpolation="AREA").to_ndarray()


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))


def _name(env: gym.Env) -> str:
    return env.spec.id if env.spec else "the environment"


def _mujoco_renderer(env: gym.Env) -> Any:
    """What draws the environment, if that is MuJoCo in Gymnasium's way."""
    return getattr(env.unwrapped, "mujoco_renderer", None)


def _choose_graphics_library() -> None:
    """Unless the user chose, draw with EGL where it works, else with OSMesa, which needs neither card nor screen."""
    if sys.platform == "linux" and not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = "egl" if _egl_works() else "osmesa"


@functools.cache
def _egl_works() -> bool:
    """Try in another process: EGL may crash, and after a failed attempt OSMesa can no longer be loaded in this one."""
    environment = {**os.environ, "MUJOCO_GL": "egl"}
    try:
        tried = subprocess.run(
            [sys.executable, "-c", EGL_PROBE], env=environment, capture_output=True, timeout=EGL_PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return tried.returncode == 0


def _cure() -> str:
    """What to do about a graphics library that does not draw."""
    chosen = os.environ.get("MUJOCO_GL")
    cause = f"MUJOCO_GL is {chosen}" if chosen else "If it is drawn by MuJoCo"
    return f"{cause}: `apt-get install libosmesa6` (or libegl1), or set MUJOCO_GL to osmesa, egl or glfw"


def _make_plain(renderer: Any, env: gym.Env) -> None:
    """Draw fast and small; follow the body, by the model's own camera for that, unless options chose a camera."""
    import mujoco

    model = renderer.model
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = 0
    model.mat_reflectance[:] = 0
    scale = MUJOCO_SIDE / max(renderer.width, renderer.height)
    renderer.width, renderer.height = _even(renderer.width * scale), _even(renderer.height * scale)
    chosen = env.spec.kwargs if env.spec else {}
    if not {"camera_id", "camera_name", "default_camera_config"} & set(chosen):
        renderer.camera_id = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")


def _close(env: gym.Env) -> None:
    """Close it. MuJoCo's buffers go first: freed later, they would be taken from the next environment's context."""
    viewer = getattr(_mujoco_renderer(env), "viewer", None)
    if viewer is not None:
        viewer.make_context_current()
        viewer.con.free()
    env.close()


def _require_encoder() -> None:
    try:
        import av

        av.Codec(ENCODER, "w")
    except ImportError as error:
        raise UserError("clips need PyAV, which is missing: pip install 'prefloop[control]'") from error
    except ValueError as error:  # PyAV's UnknownCodecError is one
        raise UserError(
            f"this PyAV ({av.__version__}) has no {ENCODER}, which encodes the clips: pip install --force-reinstall av"
        ) from error


def _encode(frames: Iterator[np.ndarray], fps: Fraction, path: Path) -> None:
    """Write the frames as an MP4 whose index comes first, so that a browser can begin before it has the whole file."""
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as file:
        stream = file.add_stream(ENCODER, rate=fps, options=ENCODING)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        file.mux(stream.encode(None))


def _png(frame: np.ndarray) -> bytes:
    """The frame as a PNG file."""
    import av

    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = frame.shape[:2]
    codec.pix_fmt, codec.time_base = "rgb24", Fraction(1)
    packets = codec.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")) + codec.encode(None)
    return b"".join(bytes(packet) for packet in packets)
