"""Prefloop's side of `speed.py`: does the job in a file, and writes what it took.

    python benchmarks/speed_prefloop.py JOB.json OUT.json

Started by `speed.py`, once for each measurement, so that the peak of memory is of this work alone.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn
from torch.nn.functional import linear

from labeling.records import Preference
from rlhf.backbones import Backbone, load_backbone
from rlhf.logprobs import token_logprobs
from rlhf.optimiser_step import Setting, make_learner
from rlhf.packing import Group, pack
from rlhf.policy import make_policy
from rlhf.policy_update import update
from rlhf.recipes import GRPO, PPO, Recipe
from rlhf.resting import lay_down
from rlhf.reward_model import make_critic, make_reward_model, score_groups
from rlhf.reward_training import Example, Fit, fit
from rlhf.rollout import assemble, choose, collect
from rlhf.sampling import Sampled, sample

Job = dict[str, Any]


def run(job: Job) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    speed = matmul_speed()
    found = reward_training(job) if job["kind"] == "reward" else policy_steps(job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found | {"peak_bytes": peak, "matmul_flops": speed, "versions": {"torch": torch.__version__}}


def matmul_speed() -> float:
    """Floating-point operations of a processor second in products of this model's shape: the best of ten."""
    x, weight = torch.randn(512, 576), torch.randn(1536, 576)
    times = []
    for _ in range(10):
        start = time.process_time()
        for _ in range(10):
            linear(x, weight)
        times.append(time.process_time() - start)
    return 10 * 2 * x.shape[0] * weight.numel() / min(times)


def loaded(job: Job) -> Backbone:
    return replace(load_backbone(job["model"]), eos_ids=(job["end"],))


def reward_training(job: Job) -> dict[str, Any]:
    """One slate a step; its first candidate is the best, and so on."""
    model = make_reward_model(loaded(job), "full", 8)  # and the policy is let go
    examples = []
    for slate in job["slates"]:
        k = len(slate["candidates"])
        preferences = tuple(Preference("", i, j, 1.0) for i in range(k) for j in range(i + 1, k))
        examples.append(Example(Group(tuple(slate["prompt"]), tuple(map(tuple, slate["candidates"]))), preferences))
    settings = Fit(1, job["learning_rate"], job["head_learning_rate"], 1, token_budget=job["token_budget"])
    times = [clock()]
    losses = fit(
        model, examples, settings, 0, torch.Generator().manual_seed(job["seed"]), lambda *_: times.append(clock())
    )
    return since(times) | {"losses": losses}


def policy_steps(job: Job) -> dict[str, Any]:
    backbone = loaded(job)
    reward_model = make_reward_model(backbone, "full", 8) if job["kind"] == "ppo" else None
    policy = make_policy(backbone, "lora" if job["lora"] else "full", job["lora"] or 8)
    recipe: Recipe = replace(PPO if job["kind"] == "ppo" else GRPO, epochs=1, minibatches=1)
    if recipe.loss_kl is not None:
        recipe = replace(recipe, loss_kl=replace(recipe.loss_kl, beta=job["beta"]))
    learner = make_learner(policy, make_critic(reward_model) if reward_model else None, recipe)
    if reward_model is not None:
        lay_down(reward_model.decoder)
    generator = torch.Generator().manual_seed(job["seed"])
    times = [clock()]
    phases: list[dict[str, float]] = []
    for _ in range(job["steps"]):
        took: dict[str, float] = {}
        with timed(took, "sampling"):
            prompts, each, longest = job["prompts"], job["responses"], job["new_tokens"]
            responses = sample(backbone, policy.model, prompts, each, longest, 1.0, generator, note=len(prompts))
        lengths = {len(s.ids) for row in responses for s in row}
        assert lengths == {job["new_tokens"]}, f"lengths {lengths}: nothing may end a response here"
        with timed(took, "scoring"):
            scores = rewards(reward_model, job["prompts"], responses, job["token_budget"])
        with timed(took, "reference"):
            groups, _ = choose(collect(job["prompts"], responses, scores)[0], recipe.samples, generator)
            budget = job["token_budget"]
            rollout = assemble(policy, learner.critic, groups, job["new_tokens"], 1.0, budget, note=True)
        with timed(took, "update"):
            update(learner, rollout, recipe, Setting(1.0, job["token_budget"]), generator)
        phases.append(took)
        times.append(clock())
    return since(times) | {"phases": phases, "logp_error": against_plain(policy.model, rollout.groups[0])}


def rewards(
    model: Any, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[Sampled]], budget: int
) -> list[list[float]]:
    """By the reward model, or by a rule that costs nothing."""
    if model is None:
        return [[sum(s.ids) % 97 / 97 for s in row] for row in responses]
    groups = [Group(tuple(p), tuple(s.ids for s in row)) for p, row in zip(prompts, responses, strict=True)]
    scores = score_groups(model, groups, 0, budget).tolist()
    return [[scores.pop(0) for _ in row] for row in responses]


@torch.no_grad()
def against_plain(model: nn.Module, group: Group) -> float:
    """The largest difference of our log-probabilities from those of a plain forward of each sequence."""
    logp, _ = token_logprobs(model, pack([group], 0), 1.0)
    worst = 0.0
    for n, candidate in enumerate(group.candidates[:2]):
        ids = torch.tensor([[*group.prompt, *candidate]])
        plain = model(input_ids=ids).logits[0, len(group.prompt) - 1 : -1].log_softmax(-1)
        worst = max(worst, (plain[range(len(candidate)), candidate] - logp[n]).abs().max().item())
    return worst


@contextmanager
def timed(took: dict[str, float], phase: str) -> Iterator[None]:
    start = time.process_time()
    yield
    took[phase] = time.process_time() - start


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(times: Sequence[tuple[float, float]]) -> dict[str, list[float]]:
    """Seconds, and processor seconds of all threads, of each step."""
    steps = list(pairwise(times))
    return {"seconds": [b[0] - a[0] for a, b in steps], "cpu_seconds": [b[1] - a[1] for a, b in steps]}


if __name__ == "__main__":
    job_file, out_file = map(Path, sys.argv[1:])
    out_file.write_text(json.dumps(run(json.loads(job_file.read_text()))))
