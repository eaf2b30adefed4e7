"""What a run has learned so far, how it starts, and how it is saved and taken up again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from labeling.records import Prompt
from rlhf.backbones import Backbone, load_backbone
from rlhf.checkpoints import latest_checkpoint, restore, save_checkpoint, trained_state
from rlhf.logprobs import check_layout
from rlhf.loop_steps import check_prompts
from rlhf.packing import Group
from rlhf.policy import Policy, make_policy
from rlhf.policy_update import Learner, make_learner
from rlhf.recipes import Recipe
from rlhf.reward_head import States
from rlhf.reward_model import ScoreModel, make_critic, make_reward_model
from rlhf.run_config import RunConfig


@dataclass
class LoopState:
    """One run between two iterations.

    learner: None until the first fit, because the critic starts from the reward model. fits: refits so far.
    fitted: client_keys of all labels that a fit was given. references: responses of the untouched policy that
    define the reward model's zero and unit. history: the figures of each iteration. states: frozen hidden states of
    labelled slates, kept to save time and not in checkpoints.
    """

    policy: Policy
    reward_model: ScoreModel
    learner: Learner | None = None
    iteration: int = 0
    fits: int = 0
    fitted: set[str] = field(default_factory=set)
    references: list[Group] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    states: States = field(default_factory=dict)

    @property
    def backbone(self) -> Backbone:
        """The policy's model and tokenizer."""
        return self.policy.backbone


def start(config: RunConfig, prompts: Sequence[Prompt]) -> LoopState:
    """Load the model and make policy and reward model from it. Raises UserError before any work on bad input."""
    torch.manual_seed(config.seed)
    backbone = load_backbone(config.model.name, config.seed)
    if torch.cuda.is_available():
        backbone.model.to("cuda")  # type: ignore[arg-type]
    check_layout(backbone)
    check_prompts(backbone, prompts, config.sampling.max_new_tokens)
    # The reward model copies the backbone before the policy's adapters are put into it.
    reward_model = make_reward_model(backbone, config.reward_model.adaptation, config.model.lora_rank)
    return LoopState(make_policy(backbone, config.model.adaptation, config.model.lora_rank), reward_model)


def add_learner(state: LoopState, recipe: Recipe) -> Learner:
    """The learner, made on first use: a critic, if the recipe has one, begins as the reward model of that moment."""
    if state.learner is None:
        critic = make_critic(state.reward_model) if recipe.critic else None
        state.learner = make_learner(state.policy, critic, recipe)
    return state.learner


def save(state: LoopState, config: RunConfig, folder: Path) -> None:
    """Write the checkpoint of the iteration that just ended."""
    learner = state.learner
    assert learner is not None
    data = {
        "policy": trained_state(state.policy.model),
        "reward_model": trained_state(state.reward_model),
        "critic": trained_state(learner.critic) if learner.critic else None,
        "policy_optimizer": learner.policy_optimizer.state_dict(),
        "critic_optimizer": learner.critic_optimizer.state_dict() if learner.critic_optimizer else None,
        "beta": learner.beta,
        "fits": state.fits,
        "fitted": sorted(state.fitted),
        "references": [[list(g.prompt), [list(c) for c in g.candidates]] for g in state.references],
        "history": state.history,
    }
    save_checkpoint(folder, state.iteration, data, config.keep_checkpoints)


def load(state: LoopState, recipe: Recipe, folder: Path) -> bool:
    """Take up the newest checkpoint in `folder`. Returns whether there was one."""
    found = latest_checkpoint(folder)
    if found is None:
        return False
    state.iteration, data = found
    restore(state.policy.model, data["policy"])
    restore(state.reward_model, data["reward_model"])
    learner = add_learner(state, recipe)
    learner.policy_optimizer.load_state_dict(data["policy_optimizer"])
    if learner.critic is not None and learner.critic_optimizer is not None:
        restore(learner.critic, data["critic"])
        learner.critic_optimizer.load_state_dict(data["critic_optimizer"])
    learner.beta = data["beta"]
    state.fits = data["fits"]
    state.fitted = set(data["fitted"])
    state.references = [Group(tuple(p), tuple(tuple(c) for c in cs)) for p, cs in data["references"]]
    state.history = data["history"]
    return True
