"""An agent as the loop's subject: it acts, and its slates are segments of what it did.

Refits run in a process of their own beside the agent's training: an update is rewarded by the reward model of the fit
before, and nobody waits but for the very first fit.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from labeling.intervals import bootstrap
from labeling.records import Candidate, LabeledSlate, Lineage, Message, Preference, Prompt, Slate, Split, UserError
from labeling.segments import Segment
from labeling.selection import Contest, choose_contests
from rlhf.checkpoints import restore, trained_state
from rlhf.control.agent import Agent, explore, install, learn, make_agent, play
from rlhf.control.agent_state import load_agent, save_agent
from rlhf.control.control_config import ControlConfig, spec
from rlhf.control.descriptions import describe
from rlhf.control.environments import check, make, steps_per_second
from rlhf.control.episodes import Episode, cut, draw_segments
from rlhf.control.segment_model import SegmentModel
from rlhf.control.segment_training import Fitted, SegmentFit, fit_segments, gather
from rlhf.diagnosis import AGENT, Verdicts
from rlhf.online_loop import Improved, Progress, Report
from rlhf.random_streams import python_stream, stream_seed
from rlhf.reward_training import Accuracy, compare_scores

# Weight decay of each member before anything was measured. Much: a few labels are soon learned by heart, and an agent
# goes where such a model errs before the next fit.
FIRST_DECAY = 3.0
KEPT_ITERATIONS = 2  # how many iterations' episodes may still be asked about


class Shelf(Protocol):
    """Where segments are kept; the project's store is one."""

    def add_segments(self, segments: Iterable[Segment]) -> int:
        """Keep segments; one that is there already changes nothing."""

    def segments(self, ids: Iterable[str]) -> dict[str, Segment]:
        """Those of the named segments that are there."""


@dataclass
class ControlSubject:
    """What a run of an agent has learned, and what it did of late. See `rlhf.online_loop.Subject` for the methods.

    decay: each member's weight decay. recent: the episodes of the last iterations, by iteration; those whose seed
    `is_held` are asked about to measure, and never to learn from. known: segments read before, by id.
    """

    config: ControlConfig
    shelf: Shelf
    executor: Executor
    agent: Agent
    reward_model: SegmentModel
    decay: tuple[float, ...]
    seconds_per_step: float | None
    recent: dict[int, list[Episode]] = field(default_factory=dict)
    known: dict[str, Segment] = field(default_factory=dict)
    fits_beside_updates: bool = True
    verdicts: Verdicts = AGENT

    @property
    def environment(self) -> str:
        """How to make the environment again."""
        return spec(self.config.environment)

    def sample(self, iteration: int, asked: int, held: int, report: Report) -> None:
        """Act at random before anything was learned; later the episodes of the update before are at hand."""
        if iteration == 1:
            steps = max(self.config.agent.steps, (asked + held) * self.config.segments.length)
            with report("sample", f"{steps} random steps"):
                self.recent[0] = explore(self.environment, steps, self.config.seed)

    def slates(self, iteration: int, asked: int, held: int, reward_model: str) -> list[Slate]:
        """The best of a pool of random slates, by the selector; held-out ones are always random.

        They come mixed: whoever answers only some of them answers held-out ones at their share, so that the reward
        model is measured by people from the beginning, and those by chance at theirs. Raises UserError where nothing
        can be compared at all.
        """
        labels, made = self.config.labels, []
        splits: tuple[tuple[Split, int, str], ...] = (("heldout", held, "random"), ("train", asked, labels.selector))
        for split, count, selector in splits:
            chance = python_stream(self.config.seed, iteration, "select", split)
            pool = count * (self.config.segments.pool if selector == "disagreement" and reward_model else 1)
            groups = self._pool(split, pool, iteration) if count else []
            rates = self._disagreement(groups) if groups and selector == "disagreement" and reward_model else []
            for contest in choose_contests(len(groups), rates, count, labels.random_share, chance):
                made.append(self._slate(split, groups[contest.number], contest, iteration, reward_model))
        mixed = list({slate.id: slate for slate in made}.values())
        if iteration == 1 and not any(slate.prompt.split == "train" for slate in mixed):
            done = [len(e) for kept in self.recent.values() for e in kept]
            name = self.config.environment.id
            raise UserError(
                f"no two clips of segments.length = {self.config.segments.length} steps can be cut from what was "
                f"done at random in {name} ({len(done)} episodes of at most {max(done)} steps): "
                "shorten the clips, or raise agent.steps"
            )
        python_stream(self.config.seed, iteration, "order").shuffle(mixed)
        return mixed

    def _pool(self, split: Split, count: int, iteration: int) -> list[list[Segment]]:
        """`count` groups of different segments, their sizes as the run file asks in turn."""
        episodes = [e for kept in self.recent.values() for e in kept if self._is_held(e) == (split == "heldout")]
        sizes = [self.config.labels.candidates[n % len(self.config.labels.candidates)] for n in range(count)]
        chance = python_stream(self.config.seed, iteration, "segments", split)
        env, length = self.agent.recorders[0].env, self.config.segments.length
        drawn = draw_segments(episodes, sum(sizes), length, env, self.environment, chance)
        groups: list[list[Segment]] = []
        for size in sizes:
            group, drawn = drawn[:size], drawn[size:]
            if len(group) == size:
                groups.append(group)
        return groups

    def _is_held(self, episode: Episode) -> bool:
        return stream_seed(self.config.seed, "heldout", episode.seed) / 2**63 < self.config.labels.heldout_share

    @torch.no_grad()
    def _disagreement(self, groups: Sequence[Sequence[Segment]]) -> list[float]:
        """Variance over the members of P(i ≻ j), mean over each group's pairs (Christiano 2017, arXiv 1706.03741)."""
        data = gather([("", [s.steps for s in group], ()) for group in groups])
        scores = self.reward_model.scores(torch.from_numpy(data.steps), torch.from_numpy(data.mask))
        rates = []
        for part in scores.split(list(data.sizes), dim=1):
            i, j = torch.triu_indices(part.shape[1], part.shape[1], 1)
            rates.append((part[:, i] - part[:, j]).sigmoid().var(0, unbiased=False).mean().item())
        return rates

    def _slate(
        self, split: Split, group: Sequence[Segment], contest: Contest, iteration: int, reward_model: str
    ) -> Slate:
        self.shelf.add_segments(group)
        self.known |= {s.id: s for s in group}
        predicted: tuple[float, ...] = ()
        if reward_model:
            rewards = [predict_sum(self.reward_model, s) for s in group]
            predicted = tuple(rewards)
        version = f"policy-{iteration - 1}"
        candidates = tuple(Candidate(describe(s, self.seconds_per_step), version, True, s.id) for s in group)
        name = self.config.name
        lineage = Lineage(name, iteration, contest.selector, contest.propensity, reward_model, predicted)
        return Slate(task(self.config, split), candidates, lineage)

    def begin_fit(
        self, iteration: int, chosen: Sequence[LabeledSlate], afresh: bool, progress: Progress
    ) -> Callable[[], float]:
        """Fit in the other process, and reward the agent by the outcome once the fit is ended."""
        settings = self.config.reward_model
        data = gather([self._arrays(s) for s in chosen])
        updates = settings.first_updates if iteration == 1 or afresh else settings.updates
        how = SegmentFit(updates, settings.learning_rate, settings.slates_per_step, self.config.seed, iteration)
        # The agent is paid by the old one until this fit ends.
        model = _untrained(self.config, len(self.reward_model.feature_mean)) if afresh else self.reward_model
        decay = (FIRST_DECAY,) * settings.members if afresh else self.decay
        job: Future[Fitted] = self.executor.submit(fit_segments, model, data, decay, how)

        def end() -> float:
            fitted = job.result()
            self.reward_model.load_state_dict(fitted.state)
            self.decay = fitted.decay
            install(self.agent, self.reward_model)
            return fitted.train_loss

        return end

    def _arrays(self, labeled: LabeledSlate) -> tuple[str, list[Any], list[Preference]]:
        noise = self.config.reward_model.label_noise
        preferences = [replace(p, flip_rate=p.flip_rate or noise) for p in labeled.preferences]
        return labeled.slate.id, [s.steps for s in self._segments(labeled.slate)], preferences

    def _segments(self, slate: Slate) -> list[Segment]:
        ids = [c.clip for c in slate.candidates]
        missing = [name for name in ids if name not in self.known]
        if missing:
            self.known |= self.shelf.segments(missing)
        lost = [name for name in ids if name not in self.known]
        if lost:
            raise UserError(
                f"the segment {lost[0]} of slate {slate.id} is not in this project: import it, or start anew"
            )
        width = len(self.reward_model.feature_mean)
        for name in ids:
            if self.known[name].steps.shape[1] != width:  # what was imported may be anything
                raise UserError(
                    f"the segment {name} of slate {slate.id} has {self.known[name].steps.shape[1]} numbers a step, and "
                    f"{self.config.environment.id} gives {width}: name the run of another environment differently"
                )
        return [self.known[name] for name in ids]

    @torch.no_grad()
    def predict(self, labeled: Sequence[LabeledSlate]) -> list[tuple[float, ...]]:
        """Scores of segments, means over the members."""
        data = gather([self._arrays(s) for s in labeled])
        scores = self.reward_model.scores(torch.from_numpy(data.steps), torch.from_numpy(data.mask)).mean(0)
        return [tuple(part.tolist()) for part in scores.split(list(data.sizes))]

    @torch.no_grad()
    def measure(self, held: Sequence[LabeledSlate]) -> Accuracy:
        """Accuracy and calibration on slates of held-out episodes; scores are means over the members."""
        held = [s for s in held if s.preferences]
        if not held:
            return compare_scores(torch.zeros(0), [], [])
        data = gather([self._arrays(s) for s in held])
        mask = torch.from_numpy(data.mask)
        scores = self.reward_model.scores(torch.from_numpy(data.steps), mask).mean(0)
        kinds = [(k, p) for k, (_, p) in zip(data.sizes, data.slates, strict=True)]
        return compare_scores(scores, kinds, mask.sum(1).tolist())

    def improve(self, iteration: int, report: Report) -> Improved:
        """Train the agent on the predicted reward."""
        agent = self.config.agent
        with report("update", f"{agent.steps} steps of {agent.algorithm}") as progress:
            run_steps = self.config.iterations * agent.steps if agent.anneal else None
            episodes, figures = learn(self.agent, agent.steps, self.config.seed, iteration, progress, run_steps)
        self.recent[iteration] = episodes
        for old in [i for i in self.recent if i <= iteration - KEPT_ITERATIONS]:
            del self.recent[old]
        ended = [sum(e.rewards) for e in episodes[: int(figures["episodes"])]]
        gold = sum(ended) / len(ended) if ended and self.config.evaluation.gold == "return" else None
        return Improved(figures, figures["predicted_reward"], gold)

    def evaluate(self, iteration: int, figures: Mapping[str, float], report: Report) -> dict[str, Any]:
        """Episodes without exploration: their true and predicted returns, and a clip of the first."""
        settings = self.config.evaluation
        with report("evaluate", f"{settings.episodes} episodes"):
            episodes = play(self.agent, self.environment, settings.episodes, self.config.seed)
        env = self.agent.recorders[0].env
        whole = [cut(e, 0, len(e), env, self.environment) for e in episodes]
        seconds = self.seconds_per_step or 0.05
        shown = cut(episodes[0], 0, max(2, round(settings.clip_seconds / seconds)), env, self.environment)
        self.shelf.add_segments([shown])
        golds = [s.gold for s in whole] if settings.gold == "return" else []
        interval = bootstrap(golds)
        return {
            "split": "heldout",
            "gold": interval.mean if golds else None,
            "gold_low": interval.low if golds else None,
            "gold_high": interval.high if golds else None,
            "proxy": sum(predict_sum(self.reward_model, s) for s in whole) / len(whole) if iteration else None,
            "length": sum(map(len, episodes)) / len(episodes),
            "clip": shown.id,
            "environment_steps": figures.get("environment_steps", 0.0),
            "samples": [],
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: agent, reward model, and the episodes that the next iteration asks about."""
        return {
            "agent": save_agent(self.agent),
            "reward_model": trained_state(self.reward_model),
            "decay": list(self.decay),
            "recent": {i: [_pack(e) for e in episodes] for i, episodes in self.recent.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a checkpoint."""
        restore(self.reward_model, state["reward_model"])
        self.decay = tuple(state["decay"])
        self.recent = {i: [_unpack(e) for e in episodes] for i, episodes in state["recent"].items()}
        load_agent(self.agent, state["agent"])

    def close(self) -> None:
        """Let go of the other process and of the environments."""
        self.executor.shutdown(cancel_futures=True)
        self.agent.environments.close()


def task(config: ControlConfig, split: Split) -> Prompt:
    """What is compared, as a prompt; held-out episodes are another prompt, as any other split is."""
    guide = f"\n{config.guide}" if config.guide else ""
    about = f"Clips of an agent in {config.environment.id}, of {config.segments.length} steps each."
    kept = " These episodes only measure." if split == "heldout" else ""
    return Prompt((Message("system", about + kept), Message("user", config.question + guide)), split, "clips")


def predict_sum(model: SegmentModel, segment: Segment) -> float:
    """The reward that an agent would be paid over a segment."""
    return model.reward(torch.from_numpy(segment.steps)).sum().item()


def make_control_subject(config: ControlConfig, shelf: Shelf, executor: Executor | None = None) -> ControlSubject:
    """An untrained agent with an untrained reward model. executor: where refits run; a process of their own by default.

    Raises UserError before any work for an environment or options that cannot work.
    """
    environment = spec(config.environment)
    check(environment)
    torch.set_num_threads(
        1
    )  # small networks: a second thread costs more than it brings, and refits have a core of theirs
    env = make(environment)
    features = cut_features(env)
    rate, limit = steps_per_second(env), env.spec.max_episode_steps if env.spec else None
    env.close()
    if limit is not None and limit < config.segments.length:
        raise UserError(
            f"segments.length = {config.segments.length} is more than the {limit} steps of an episode of "
            f"{config.environment.id}: shorten it, or set environment.max_steps"
        )
    model = _untrained(config, features)
    agent = make_agent(config.agent, environment, model, config.seed)
    beside = executor or ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _ignore_interrupts)
    decay = (FIRST_DECAY,) * config.reward_model.members
    return ControlSubject(config, shelf, beside, agent, model, decay, 1 / rate if rate else None)


def _untrained(config: ControlConfig, features: int) -> SegmentModel:
    """The reward model that a run begins with."""
    settings = config.reward_model
    torch.manual_seed(stream_seed(config.seed, "reward model") % 2**63)
    return SegmentModel(features, settings.members, settings.hidden, settings.aggregation).eval()


def cut_features(env: Any) -> int:
    """F: how many numbers the reward model reads of a step."""
    acts = env.action_space
    return int(env.observation_space.shape[0]) + int(acts.n if hasattr(acts, "n") else acts.shape[0])


def _ignore_interrupts() -> None:
    """A Ctrl-C is the run's to handle; the refit under way is thrown away with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _pack(e: Episode) -> list[Any]:
    arrays = [torch.from_numpy(np.asarray(x)) for x in (e.observations, e.actions, e.rewards)]
    return [e.seed, *arrays, e.terminated]


def _unpack(packed: Sequence[Any]) -> Episode:
    seed, observations, actions, rewards, terminated = packed
    return Episode(seed, list(observations.numpy()), list(actions.numpy()), rewards.tolist(), terminated)
