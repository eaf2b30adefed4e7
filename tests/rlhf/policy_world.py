"""A tiny policy with ragged responses whose update takes plain gradient steps, so that a wrong scale shows."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from rlhf.auxiliary import Likelihood
from rlhf.backbones import load_backbone
from rlhf.logprobs import token_logprobs
from rlhf.optimiser_step import Learner, Setting, make_learner
from rlhf.packing import Group, pack
from rlhf.policy import Policy, make_policy
from rlhf.policy_update import update
from rlhf.recipes import Recipe
from rlhf.reward_model import Adaptation, make_reward_model
from rlhf.rollout import Rollout, assemble, collect
from rlhf.sampling import Sampled

TEMPERATURE = 0.8
CRITIC_RATE = 0.01  # the value loss is steep; larger steps diverge
WHOLE, CUT = 100_000, 1
# Ragged responses, one of a single token; a group of four, of one and of two.
PROMPTS = [(70, 71, 72), (80, 81, 82, 83, 84), (90, 91)]
RESPONSES = [
    [(10, 11, 12, 13), (20,), (30, 31), (40, 41, 42)],
    [(50, 51, 52, 53, 54)],
    [(60, 61, 62), (65, 66)],
]
REWARDS = [[1.0, -0.5, 0.3, 2.0], [0.7], [-1.0, 1.5]]
COUNT = 7
LONGEST = 6
BASELINES = [0.0, 0.0, 0.0]  # scores of greedy responses


def make(recipe: Recipe, adaptation: Adaptation = "full", rate: float = 1.0) -> Learner:
    """A learner on the tiny model that takes plain gradient steps."""
    backbone = load_backbone("tiny")
    reward_model = make_reward_model(backbone, "full", 4)
    torch.manual_seed(5)
    nn.init.normal_(reward_model.head.weight, std=0.05)
    policy = make_policy(backbone, adaptation, 4)
    learner = make_learner(policy, reward_model if recipe.critic else None, recipe)
    learner.policy_optimizer = torch.optim.SGD(policy.trained().values(), lr=rate)
    if learner.critic is not None:
        learner.critic_optimizer = torch.optim.SGD(learner.critic.parameters(), lr=CRITIC_RATE)
    return learner


def logps(policy: Policy, model: nn.Module, responses: Sequence = RESPONSES) -> list[Tensor]:
    """Log-probabilities of all responses, from sequences computed one by one."""
    rows = []
    for prompt, several in zip(PROMPTS, responses, strict=True):
        for response in several:
            packed = pack([Group(prompt, (response,))], policy.backbone.pad_id)
            rows.append(token_logprobs(model, packed, TEMPERATURE)[0][0])
    return rows


@torch.no_grad()
def all_logps(policy: Policy, model: nn.Module) -> Tensor:
    """(20,) the same, in one row."""
    return torch.cat(logps(policy, model))


@torch.no_grad()
def roll(
    learner: Learner,
    rewards: Sequence = REWARDS,
    noise: float = 0.4,
    responses: Sequence = RESPONSES,
    steps: Sequence | None = None,
    budget: int = WHOLE,
    recompute: bool = False,
) -> Rollout:
    """A rollout whose sampling policy was a little different, so that ratios leave the clip range on both sides.

    The difference is each response's own: it is the same with and without the other responses.
    """
    flat = iter(logps(learner.policy, learner.policy.model, responses))
    sampled = []
    for several in responses:
        row = []
        for ids in several:
            chance = torch.Generator().manual_seed(sum(ids))
            old = next(flat) + noise * torch.randn(len(ids), generator=chance)
            row.append(Sampled(ids, tuple(old.tolist()), True))
        sampled.append(row)
    groups, missing = collect(PROMPTS, sampled, rewards, steps, BASELINES)
    return assemble(learner.policy, learner.critic, groups, LONGEST, TEMPERATURE, budget, missing, recompute=recompute)


def step(
    learner: Learner,
    rollout: Rollout,
    recipe: Recipe,
    budget: int = WHOLE,
    likelihoods: Sequence[Likelihood] = (),
) -> dict[str, float]:
    stream = torch.Generator().manual_seed(3)
    return update(learner, rollout, recipe, Setting(TEMPERATURE, budget), stream, likelihoods)


def once(recipe: Recipe) -> Recipe:
    return replace(recipe, epochs=1, minibatches=1, max_grad_norm=1e9)


def without_kl(recipe: Recipe) -> Recipe:
    return replace(recipe, reward_kl=None, loss_kl=None)


def parameters(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def gradient_of(learner: Learner, loss: Callable[[], Tensor], module: nn.Module) -> list[Tensor]:
    module.zero_grad()
    loss().backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()]
    module.zero_grad(set_to_none=True)
    return found


def moved_by(before: list[Tensor], after: list[Tensor], rate: float) -> list[Tensor]:
    return [(a - b) / rate for a, b in zip(before, after, strict=True)]
