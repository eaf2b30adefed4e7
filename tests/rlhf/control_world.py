"""A small world for agents: segments kept in memory, and a simulated annotator that knows the true return."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labeling.oracle import oracle_label
from labeling.preferences import expand_all
from labeling.records import Annotator, Candidate, LabeledSlate, Prompt, Slate
from labeling.segments import Segment
from rlhf.control.control_config import ControlConfig
from rlhf.control.control_subject import ControlSubject, make_control_subject
from rlhf.online_loop import Surroundings, run_loop

ORACLE = Annotator(
    "oracle:gold", "oracle", flip_rate=0.2
)  # a fifth at random: a tenth of the answers to pairs is wrong


class Here(Executor):
    """Runs a job at once, in this process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it now."""
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@dataclass
class ControlWorld:
    """Surroundings in memory. temperature: of the annotator, in units of the true return."""

    seed: int
    temperature: float = 0.1
    flip: bool = False
    random_labels: bool = False
    kept: dict[str, Segment] = field(default_factory=dict)
    labeled: dict[str, LabeledSlate] = field(default_factory=dict)
    events: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    fits: dict[int, list[str]] = field(default_factory=dict)

    def add_segments(self, segments: Iterable[Segment]) -> int:
        self.kept |= {s.id: s for s in segments}
        return 0

    def segments(self, ids: Iterable[str]) -> dict[str, Segment]:
        return {name: self.kept[name] for name in ids}

    def gold(self, pairs: Sequence[tuple[Prompt, Candidate]]) -> list[float | None]:
        return [self.kept[c.clip].gold for _, c in pairs]

    def ask(self, iteration: int, slates: Sequence[Slate]) -> list[LabeledSlate]:
        for slate in slates:
            scores = [(-1 if self.flip else 1) * self.kept[c.clip].gold for c in slate.candidates]
            rate = ORACLE.flip_rate
            label = oracle_label(slate, scores, ORACLE, self.seed, self.temperature, rate, self.random_labels)
            self.labeled[slate.id] = LabeledSlate(slate, (label,), expand_all([label], {ORACLE.id: ORACLE}))
        return list(self.labeled.values())

    def surroundings(self) -> Surroundings:
        return Surroundings(
            ask=self.ask,
            gold=self.gold,
            emit=lambda iteration, kind, data: self.events.append((iteration, kind, dict(data))),
            fitted=lambda iteration, keys: self.fits.__setitem__(iteration, list(keys)),
            annotator_kind=lambda _: "oracle",
            trust=lambda annotators: [{"annotator": name} for name in sorted(annotators)],
        )

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [data for _, k, data in self.events if k == kind]


def run_agent(config: ControlConfig, folder: Path, world: ControlWorld, resume: bool = False) -> ControlSubject:
    """Run the loop with refits in this process; returns what learned."""
    made: list[ControlSubject] = []

    def make() -> ControlSubject:
        made.append(make_control_subject(config, world, Here()))
        return made[0]

    run_loop(config, config.environment.id, make, world.surroundings(), folder, resume)
    return made[0]
