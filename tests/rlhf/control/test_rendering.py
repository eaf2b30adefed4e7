"""Clips of real environments: really drawn, really encoded, and decoded again."""

import gc
import os
import random
import signal
from ctypes.util import find_library
from dataclasses import replace
from fractions import Fraction

import av
import gymnasium as gym
import numpy as np
import pytest

from labeling.clips import ClipShelf
from labeling.exchange import export_file, import_file
from labeling.records import Candidate, Message, Prompt, Slate, UserError
from labeling.store import Store
from rlhf.control import rendering
from rlhf.control.environments import EnvironmentConfig, make, spec
from rlhf.control.episodes import Recorder, cut, draw_segments
from rlhf.control.rendering import check_rendering, fps_of, png_frames, render_frames, states_per_frame, write_clip


class Odd(gym.Env):
    """An environment whose pictures are what `draw` makes of them."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's own way)

    def __init__(self, draw="grey", render_mode=None):
        self.draw, self.render_mode = draw, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def render(self):
        if self.draw == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.draw == "raise":
            raise ZeroDivisionError("no\nlight")
        return np.full({"grey": (50, 50), "wide": (101, 903, 3)}[self.draw], 99, np.uint8)


class Fast(Odd):
    """It takes 125 steps a second and gets 20 shades brighter with each, up to white and from black again."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 125}  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        self.shade = 0
        return super().reset(seed=seed)

    def step(self, action):
        self.shade = (self.shade + 20) % 256
        return super().step(action)

    def render(self):
        return np.full((50, 50, 3), self.shade, np.uint8)


class Blind(Odd):
    """It can not be drawn at all."""

    metadata = {"render_modes": []}  # noqa: RUF012


# Other processes know them as "test_rendering:Odd-v0": Gymnasium imports this file for it.
gym.register("Odd-v0", Odd, max_episode_steps=9)
gym.register("Blind-v0", Blind, max_episode_steps=9)
gym.register("Fast-v0", Fast, max_episode_steps=50)


def environment(id, **options):
    return spec(EnvironmentConfig(id, options=options))


def segment_of(id, start, length, **options):
    line = environment(id, **options)
    env = Recorder(make(line), lambda n: 70 + n)
    env.action_space.seed(1)
    env.reset()
    while not env.finished:
        env.step(env.action_space.sample())
    env.close()
    return cut(env.take_finished()[0], start, length, env, line)


@pytest.fixture(scope="module")
def pendulum():
    return segment_of("Pendulum-v1", 30, 25)


@pytest.fixture(scope="module")
def mujoco():
    """What draws MuJoCo without a screen is there; CI has it, elsewhere its tests are skipped without it."""
    try:
        check_rendering(environment("Reacher-v5"))
    except UserError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def decoded(path):
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24").astype(float) for frame in file.decode(video=0)]


def apart(one, other):
    """Mean difference of two pictures, in shades of 255."""
    return np.abs(one.astype(float) - other.astype(float)).mean()


def pendulum_at(segment, step):
    """The picture of the state in which that step was taken, drawn from the recorded numbers and not by replay."""
    env = make(segment.environment, render=True)
    env.reset(seed=0)
    cosine, sine, speed = segment.steps[step][:3]
    env.unwrapped.state = np.array([np.arctan2(sine, cosine), speed])
    env.unwrapped.last_u = float(segment.actions[segment.start + step - 1][0])
    picture = env.render()
    env.close()
    return av.VideoFrame.from_ndarray(picture, "rgb24").reformat(400, 400, interpolation="AREA").to_ndarray()


def test_each_state_is_drawn_and_it_is_the_right_one(pendulum):
    frames = list(render_frames(pendulum))
    assert len(frames) == 26
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((400, 400, 3), "uint8")}
    for step in (0, 12, 24):
        assert apart(frames[step], pendulum_at(pendulum, step)) < 0.1
        assert apart(frames[step], pendulum_at(pendulum, (step + 5) % 25)) > 1


def test_the_video_holds_the_frames(pendulum, tmp_path):
    write_clip(pendulum, tmp_path / "clip.mp4")
    frames = list(render_frames(pendulum))
    for shown, drawn in zip(decoded(tmp_path / "clip.mp4"), frames, strict=True):
        assert apart(shown, drawn) < 2
    assert apart(frames[0], frames[8]) > 2, "it moved more than the encoder blurred"
    with av.open(str(tmp_path / "clip.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 30
        packets = [packet for packet in file.demux(stream) if packet.size]
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    assert keys[0] == 0
    assert max(np.diff([*keys, len(packets)])) <= 10
    assert [packet.pts for packet in packets] == [packet.dts for packet in packets], "no frame waits for a later one"
    data = (tmp_path / "clip.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "a browser can begin before it has the whole file"
    assert len(data) < 60_000


def test_the_same_segment_gives_the_same_file(pendulum, tmp_path):
    write_clip(pendulum, tmp_path / "a.mp4")
    write_clip(pendulum, tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


@pytest.mark.parametrize("change", ["seed", "action"])
def test_what_does_not_come_back_the_same_is_not_shown(pendulum, tmp_path, change):
    actions = pendulum.actions.copy()
    actions[29] += 1
    other = replace(pendulum, seed=3) if change == "seed" else replace(pendulum, actions=actions)
    with pytest.raises(UserError, match=r"Pendulum-v1, seed \d+\) did not come back the same") as error:
        write_clip(other, tmp_path / "clip.mp4")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_pictures_for_a_judge(pendulum):
    frames = list(render_frames(pendulum))
    for data, drawn in zip(png_frames(pendulum, 3), (frames[0], frames[12], frames[25]), strict=True):
        assert data.startswith(b"\x89PNG")
        picture = next(iter(av.CodecContext.create("png", "r").decode(av.Packet(data))))
        assert (picture.to_ndarray(format="rgb24") == drawn).all()
    assert len(png_frames(pendulum, 100)) == 26


def test_a_clip_that_was_exported_can_be_watched_elsewhere(pendulum, tmp_path):
    here, there = (Store(tmp_path / name, create=True) for name in ("here", "there"))
    other = segment_of("Pendulum-v1", 5, 25)
    here.add_segments([pendulum, other])
    told = tuple(Candidate(s.id, clip=s.id) for s in (pendulum, other))
    here.add_slates([Slate(Prompt((Message("user", "Which?"),)), told)])
    export_file(here, tmp_path / "labels.jsonl", "labels")
    import_file(there, tmp_path / "labels.jsonl")
    write_clip(pendulum, tmp_path / "here.mp4")
    write_clip(there.segments([pendulum.id])[pendulum.id], tmp_path / "there.mp4")
    assert (tmp_path / "here.mp4").read_bytes() == (tmp_path / "there.mp4").read_bytes()


def test_a_choice_of_actions_and_large_pictures_are_fine(tmp_path):
    lander = segment_of("LunarLander-v3", 10, 20)
    write_clip(lander, tmp_path / "clip.mp4")
    frames = decoded(tmp_path / "clip.mp4")
    assert [frame.shape for frame in frames] == [(266, 400, 3)] * 21
    assert apart(frames[0], frames[-1]) > 0.5


def test_odd_sides_are_made_even():
    wide = segment_of("Odd-v0", 0, 3, draw="wide")
    assert {frame.shape for frame in render_frames(wide)} == {(44, 400, 3)}  # 101 × 400 / 903 = 44.7


def test_a_clip_of_many_steps_a_second_shows_every_nth_of_them_in_real_time(tmp_path):
    """Hopper's 125 steps a second become 125/3 = 41.7 frames; 50 steps, 51 states, 17 frames: 17·3/125 = 0.408 s."""
    fast = segment_of("Fast-v0", 0, 50)
    write_clip(fast, tmp_path / "clip.mp4")
    shown, states = decoded(tmp_path / "clip.mp4"), list(render_frames(fast))
    assert (len(shown), len(states)) == (17, 51)
    for n, picture in enumerate(shown):
        assert apart(picture, states[3 * n]) < 2 < apart(picture, states[3 * n + 1])
    with av.open(str(tmp_path / "clip.mp4")) as file:
        stream = file.streams.video[0]
        assert stream.average_rate == Fraction(125, 3)
        assert float(stream.duration * stream.time_base) == pytest.approx(17 * 3 / 125)


@pytest.mark.parametrize(("fps", "every"), [(1, 1), (30, 1), (60, 1), (61, 2), (100, 2), (125, 3), (500, 9)])
def test_frames_a_second(fps, every):
    assert states_per_frame(fps) == every
    assert fps < 60 or 30 < fps / every <= 60


def test_speed_is_real_time_or_a_guess():
    for id, fps in (("FrozenLake-v1", 4), ("Odd-v0", 30)):
        assert fps_of(gym.make(id)) == fps


@pytest.mark.usefixtures("mujoco")
def test_mujoco_after_mujoco_is_not_black():
    segments = [segment_of(id, 0, 4) for id in ("Hopper-v5", "Reacher-v5", "Hopper-v5")]
    hopper, reacher, again = (list(render_frames(s)) for s in segments)
    assert hopper[0].shape == (320, 320, 3)
    assert hopper[0].std() > 20 < reacher[0].std()
    assert all((a == b).all() for a, b in zip(hopper, again, strict=True))
    assert apart(hopper[0], hopper[-1]) > 0.1


@pytest.mark.usefixtures("mujoco")
def test_an_environment_that_is_thrown_away_late_takes_no_picture_with_it():
    with rendering._stage(environment("Hopper-v5")) as old:
        old.reset(seed=0)
        rendering._picture(old)
    with rendering._stage(environment("Reacher-v5")) as env:
        env.reset(seed=0)
        before = rendering._picture(env)
        del old
        gc.collect()
        assert (rendering._picture(env) == before).all()


@pytest.mark.usefixtures("mujoco")
@pytest.mark.parametrize("id", ["Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5"])
def test_the_camera_follows_the_body(id):
    with rendering._stage(environment(id)) as env:
        env.reset(seed=0)
        assert env.unwrapped.model.vis.quality.offsamples == 0
        positions = env.unwrapped.data.qpos.copy()
        near = rendering._picture(env)
        positions[0] += 30
        env.unwrapped.set_state(positions, env.unwrapped.data.qvel)
        far = rendering._picture(env)
    for picture in (near.astype(int), far.astype(int)):
        rows, columns = np.nonzero(picture[:, :, 0] - picture[:, :, 2] > 40)  # brown limbs: more red than blue
        assert len(rows) > 500
        assert 100 < columns.mean() < 220


@pytest.mark.usefixtures("mujoco")
def test_a_camera_and_a_shape_of_ones_own_are_kept():
    with rendering._stage(environment("Hopper-v5", camera_id=-1, width=640, height=480)) as env:
        assert env.unwrapped.mujoco_renderer.camera_id == -1
        env.reset(seed=0)
        assert rendering._picture(env).shape == (240, 320, 3)


def without(tmp_path, monkeypatch, *libraries):
    """Let other processes find a broken file instead of these libraries, and choose for themselves."""
    for library in libraries:
        for version in ("", ".0", ".1", ".6", ".8"):
            (tmp_path / f"{library}.so{version}").write_text("no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)  # MuJoCo sets it when it draws in this process


@pytest.mark.usefixtures("mujoco")
@pytest.mark.skipif(find_library("OSMesa") is None and not os.environ.get("CI"), reason="apt-get install libosmesa6")
def test_without_egl_osmesa_draws(tmp_path, monkeypatch):
    without(tmp_path, monkeypatch, "libEGL")
    check_rendering(environment("Reacher-v5"))


def test_without_any_graphics_library_the_cure_is_named(tmp_path, monkeypatch):
    without(tmp_path, monkeypatch, "libEGL", "libOSMesa")
    with pytest.raises(UserError, match=r"^Reacher-v5 cannot be drawn .*`apt-get install libosmesa6`") as error:
        check_rendering(environment("Reacher-v5"))
    assert "\n" not in str(error.value)
    check_rendering(environment("Pendulum-v1"))


@pytest.mark.parametrize("chosen", ["nonsense", "egl", "osmesa"])
def test_a_chosen_graphics_library_that_does_not_work_is_named(tmp_path, monkeypatch, chosen):
    without(tmp_path, monkeypatch, "libEGL", "libOSMesa")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MUJOCO_GL", chosen)
    with pytest.raises(UserError, match=rf"Reacher-v5.*MUJOCO_GL is {chosen}: `apt-get install libosmesa6`") as error:
        check_rendering(environment("Reacher-v5"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("id", "options", "why"),
    [
        ("Odd-v0", {"draw": "crash"}, r"^drawing the environment crashed \(exit status -11\)"),
        ("Odd-v0", {"draw": "raise"}, r"^Odd-v0 cannot be drawn \(ZeroDivisionError: no light\)$"),
        ("Odd-v0", {"draw": "grey"}, r"Odd-v0 draws no \(height, width, 3\) uint8 picture"),
        ("Blind-v0", {}, r"no rgb_array mode"),
        ("Nowhere-v0", {}, r"Nowhere"),
    ],
)
def test_what_cannot_be_drawn_is_said_beforehand(id, options, why):
    with pytest.raises(UserError, match=why) as error:
        check_rendering(environment(f"test_rendering:{id}", **options))
    assert "\n" not in str(error.value)


def test_no_frame_in_time(monkeypatch):
    monkeypatch.setattr(rendering, "FIRST_FRAME_SECONDS", 0.01)
    with pytest.raises(UserError, match=r"^no frame within 0.01 s"):
        check_rendering(environment("Pendulum-v1"))


def test_without_an_encoder(pendulum, tmp_path, monkeypatch):
    monkeypatch.setattr(rendering, "ENCODER", "h265000")
    for attempt in (lambda: check_rendering(pendulum.environment), lambda: write_clip(pendulum, tmp_path / "clip.mp4")):
        with pytest.raises(UserError, match=r"has no h265000, which encodes the clips: pip install"):
            attempt()


def test_a_shelf_of_real_clips(tmp_path):
    line = environment("Pendulum-v1")
    env = Recorder(make(line), lambda n: n)
    env.reset()
    while not env.finished:
        env.step(env.action_space.sample())
    store = Store(tmp_path, create=True)
    segments = draw_segments(env.take_finished(), 3, 20, env, line, random.Random(0))
    store.add_segments(segments)
    shelf = ClipShelf(store.segments, tmp_path / "clips", write_clip)
    try:
        shelf.prepare(segment.id for segment in segments)
        for segment in segments:
            first = decoded(shelf.video(segment.id))[0]
            assert apart(first, next(iter(render_frames(segment)))) < 2
        broken = replace(segments[0], seed=99)
        store.add_segments([broken])
        with pytest.raises(UserError, match=f"^{broken.id} .* did not come back the same"):
            shelf.video(broken.id)
    finally:
        shelf.close()
    assert {path.stem for path in shelf.folder.iterdir()} == {segment.id for segment in segments}
