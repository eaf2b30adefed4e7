"""What the numbers of well-known environments mean: names with units, what ends an episode, and what follows from them.

Names, units and order are those of Gymnasium's own documentation. In the walkers of MuJoCo a growing angle of the torso
tips it forward, along positive x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Facts = Callable[[np.ndarray, float | None], list[str]]  # (T, F) steps and seconds per step to sentences


def no_facts(steps: np.ndarray, seconds: float | None) -> list[str]:
    """Nothing follows cheaply."""
    return []


@dataclass(frozen=True)
class Dimensions:
    """observations and actions: a name for each number. choices: a name for each action where one is chosen.

    end: what it means when an episode terminates, as words after "The episode ended with its last step: ".
    """

    observations: tuple[str, ...]
    actions: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    end: str = ""
    facts: Facts = no_facts


def _turned(name: str, degrees: float) -> str:
    if abs(degrees) < 0.5:
        return f"The {name} did not turn from first to last step."
    way = "forward" if degrees > 0 else "backward"
    return f"The {name} turned {abs(degrees):.0f}° {way} from first to last step."


def _moved(metres: float, ahead: str = "forward", back: str = "backward") -> str:
    return f"It moved {abs(metres):.2f} m {ahead if metres >= 0 else back}."


def _walks(angle: int, speed: int) -> Facts:
    """Of a walker: by how much its torso turned (it may be more than once around), and how far it came, Σ v·dt."""

    def facts(steps: np.ndarray, seconds: float | None) -> list[str]:
        told = [_turned("torso", float(np.degrees(steps[-1, angle] - steps[0, angle])))]
        return told + ([_moved(float(steps[:, speed].sum()) * seconds)] if seconds else [])

    return facts


def _drifts(x: int, y: int) -> Facts:
    """Of what moves in a plane: how far it came along each axis, Σ v·dt."""

    def facts(steps: np.ndarray, seconds: float | None) -> list[str]:
        if not seconds:
            return []
        along, across = (float(steps[:, axis].sum()) * seconds for axis in (x, y))
        return [_moved(along, "along positive x", "along negative x"), f"Along y: {across:.2f} m."]

    return facts


def _leans(*angles: Callable[[np.ndarray], np.ndarray]) -> Facts:
    """Of poles: how far each leant from upright at most; angles in rad, 0 = upright."""
    names = ("pole",) if len(angles) == 1 else ("first pole", "second pole")

    def facts(steps: np.ndarray, seconds: float | None) -> list[str]:
        most = (float(np.degrees(np.abs(angle(steps))).max()) for angle in angles)
        return [
            f"The {name} leant at most {degrees:.1f}° from upright." for name, degrees in zip(names, most, strict=True)
        ]

    return facts


def _wrapped(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _swings(steps: np.ndarray, seconds: float | None) -> list[str]:
    """Of Pendulum: how near to upright it came and stayed, and how far around it swung."""
    angle = np.arctan2(steps[:, 1], steps[:, 0])
    off = np.degrees(np.abs(angle))
    around = float(np.degrees(np.unwrap(angle)[-1] - np.unwrap(angle)[0]))
    way = "counter-clockwise" if around >= 0 else "clockwise"
    return [
        f"Angle from upright: {off[0]:.0f}° at first, {off.min():.0f}° at least, {off[-1]:.0f}° at last; within 20° of "
        f"upright in {100 * (off <= 20).mean():.0f} % of the steps.",
        f"It swung {abs(around):.0f}° {way} in all.",
    ]


def _tip_height(steps: np.ndarray, seconds: float | None) -> list[str]:
    """Of Acrobot: height of the free end over the fixed point in links, −cos θ1 − cos(θ1 + θ2); 1 is the goal."""
    c1, s1, c2, s2 = steps[:, :4].T
    height = -c1 - (c1 * c2 - s1 * s2)
    first, most, last = height[0], height.max(), height[-1]
    return [f"Height of the free end (goal: 1): {first:.2f} at first, {most:.2f} at most, {last:.2f} at last."]


def _reaches(steps: np.ndarray, seconds: float | None) -> list[str]:
    """Of Reacher: how far the fingertip was from the target."""
    off = np.hypot(steps[:, 8], steps[:, 9])
    first, least, last = off[0], off.min(), off[-1]
    return [f"From fingertip to target: {first:.3f} m at first, {least:.3f} m at least, {last:.3f} m at last."]


def _lands(steps: np.ndarray, seconds: float | None) -> list[str]:
    """Of LunarLander: its legs on the ground."""
    both = 100 * (steps[:, 6:8] > 0.5).all(1).mean()
    return [f"Both legs touched the ground in {both:.0f} % of the steps."]


def _limbs(kind: str, unit: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{kind} {name} ({unit})" for name in names)


_ONE_LEG = ("thigh", "leg", "foot")
_TWO_LEGS = ("thigh", "leg", "foot", "left thigh", "left leg", "left foot")
_CHEETAH = ("back thigh", "back shin", "back foot", "front thigh", "front shin", "front foot")
_ANT_SIDES = ("front left", "front right", "back left", "back right")
_ANT_MOTOR_SIDES = ("back right", "front left", "front right", "back left")
_ANT = tuple(f"{side} {joint}" for side in _ANT_SIDES for joint in ("hip", "ankle"))
_ANT_MOTORS = tuple(f"{side} {joint}" for side in _ANT_MOTOR_SIDES for joint in ("hip", "ankle"))
_CART = ("cart position (m)", "cart velocity (m/s)")


def _walker(limbs: tuple[str, ...], height: str = "torso height (m)", end: str = "") -> Dimensions:
    """Height, angles, velocities, angular velocities: how Hopper, Walker2d and HalfCheetah list what they see."""
    seen = (height, "torso angle (rad)", *_limbs("angle", "rad", limbs))
    speeds = ("forward velocity (m/s)", "upward velocity (m/s)", "torso angular velocity (rad/s)")
    return Dimensions(
        (*seen, *speeds, *_limbs("angular velocity", "rad/s", limbs)),
        _limbs("torque", "-1 to 1", limbs),
        end=end,
        facts=_walks(1, len(seen)),
    )


KNOWN: dict[str, Dimensions] = {
    "Pendulum": Dimensions(
        ("cosine of the angle from upright", "sine of the angle from upright", "angular velocity (rad/s)"),
        ("torque (N m)",),
        facts=_swings,
    ),
    "CartPole": Dimensions(
        (*_CART, "pole angle (rad)", "pole angular velocity (rad/s)"),
        choices=("push left", "push right"),
        end="the pole fell or the cart left the track",
        facts=_leans(lambda steps: steps[:, 2]),
    ),
    "MountainCar": Dimensions(
        ("position (m; the flag is at 0.5)", "velocity (m per step)"),
        choices=("accelerate left", "do nothing", "accelerate right"),
        end="the car reached the flag",
    ),
    "MountainCarContinuous": Dimensions(
        ("position (m; the flag is at 0.45)", "velocity (m per step)"),
        ("force to the right",),
        end="the car reached the flag",
    ),
    "Acrobot": Dimensions(
        (
            *("cosine of the first joint", "sine of the first joint", "cosine of the second joint"),
            *(
                "sine of the second joint",
                "angular velocity of the first (rad/s)",
                "angular velocity of the second (rad/s)",
            ),
        ),
        choices=("torque -1 N m", "no torque", "torque +1 N m"),
        end="the free end reached the height asked for",
        facts=_tip_height,
    ),
    "LunarLander": Dimensions(
        (
            *("sideways position (half screens, 0 = pad)", "height (half screens, 0 = pad)", "sideways velocity"),
            *("upward velocity", "angle (rad, + = leaning left)", "angular velocity", "left leg on ground"),
            "right leg on ground",
        ),
        ("main engine", "side engines"),
        ("no engine", "left engine", "main engine", "right engine"),
        end="the lander crashed, left the view or came to rest",
        facts=_lands,
    ),
    "InvertedPendulum": Dimensions(
        ("cart position (m)", "pole angle (rad)", "cart velocity (m/s)", "pole angular velocity (rad/s)"),
        ("force on the cart",),
        end="the pole fell",
        facts=_leans(lambda steps: steps[:, 1]),
    ),
    "InvertedDoublePendulum": Dimensions(
        (
            *("cart position (m)", "sine of the first pole's angle", "sine of the angle between the poles"),
            *("cosine of the first pole's angle", "cosine of the angle between the poles", "cart velocity (m/s)"),
            *(
                "first pole's angular velocity (rad/s)",
                "angular velocity between the poles (rad/s)",
                "constraint force",
            ),
        ),
        ("force on the cart",),
        end="the poles fell",
        facts=_leans(
            lambda steps: np.arctan2(steps[:, 1], steps[:, 3]),
            lambda steps: _wrapped(np.arctan2(steps[:, 1], steps[:, 3]) + np.arctan2(steps[:, 2], steps[:, 4])),
        ),
    ),
    "Reacher": Dimensions(
        (
            *("cosine of the first arm", "cosine of the second arm", "sine of the first arm", "sine of the second arm"),
            *("target x (m)", "target y (m)", "first arm's angular velocity (rad/s)"),
            *("second arm's angular velocity (rad/s)", "fingertip x from target (m)", "fingertip y from target (m)"),
        ),
        ("torque of the first hinge (-1 to 1)", "torque of the second hinge (-1 to 1)"),
        facts=_reaches,
    ),
    "Hopper": _walker(_ONE_LEG, end="the hopper fell"),
    "Walker2d": _walker(_TWO_LEGS, end="the walker fell"),
    "HalfCheetah": _walker(_CHEETAH, "torso height above the start (m)"),
    "Swimmer": Dimensions(
        (
            *("angle of the front (rad)", "angle of the first rotor (rad)", "angle of the second rotor (rad)"),
            *("velocity along x (m/s)", "velocity along y (m/s)", "angular velocity of the front (rad/s)"),
            *("angular velocity of the first rotor (rad/s)", "angular velocity of the second rotor (rad/s)"),
        ),
        ("torque of the first rotor (-1 to 1)", "torque of the second rotor (-1 to 1)"),
        facts=_drifts(3, 4),
    ),
    "Ant": Dimensions(
        (
            *("torso height (m)", *(f"torso orientation {axis} (quaternion)" for axis in "wxyz")),
            *_limbs("angle", "rad", _ANT),
            *(f"torso velocity along {axis} (m/s)" for axis in "xyz"),
            *(f"torso angular velocity about {axis} (rad/s)" for axis in "xyz"),
            *_limbs("angular velocity", "rad/s", _ANT),
            *(f"contact force {i}" for i in range(1, 79)),
        ),
        _limbs("torque", "-1 to 1", _ANT_MOTORS),
        end="the ant fell or jumped too high",
        facts=_drifts(13, 14),
    ),
}
