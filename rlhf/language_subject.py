"""A language model as the loop's subject: it answers prompts, and its slates are answers to one prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from labeling.records import LabeledSlate, Prompt, Slate, UserError
from rlhf.backbones import Backbone, load_backbone
from rlhf.checkpoints import restore, trained_state
from rlhf.logprobs import check_layout
from rlhf.loop_steps import (
    Answers,
    answer,
    candidate_groups,
    check_prompts,
    draw_prompts,
    evaluate,
    make_slates,
    reward_scores,
    take,
)
from rlhf.online_loop import GoldFn, Improved, Progress, Report
from rlhf.packing import Group
from rlhf.policy import Policy, make_policy
from rlhf.policy_update import Learner, make_learner, update
from rlhf.random_streams import torch_stream
from rlhf.reward_head import States, fit_head
from rlhf.reward_model import ScoreModel, make_critic, make_reward_model, normalise
from rlhf.reward_training import Accuracy, Fit, encode_slate, fit, measure
from rlhf.rollout import assemble
from rlhf.run_config import RunConfig

REFERENCE_PROMPTS = 8  # the answers of the untouched policy to these set the reward model's zero and unit


@dataclass
class LanguageSubject:
    """What a run of a language model has learned, and the answers of the iteration under way.

    learner: None until the first fit, because the critic starts from the reward model. references: responses of the
    untouched policy that define the reward model's zero and unit. states: frozen hidden states of labelled slates, kept
    to save time and not in checkpoints. learned, asked, held: answers to learn from (the first of those to ask about),
    to ask about, and to held-out prompts. See `rlhf.online_loop.Subject` for the methods.
    """

    config: RunConfig
    gold: GoldFn
    train: tuple[Prompt, ...]
    heldout: tuple[Prompt, ...]
    policy: Policy
    reward_model: ScoreModel
    learner: Learner | None = None
    references: list[Group] = field(default_factory=list)
    states: States = field(default_factory=dict)
    learned: Answers | None = None
    asked: Answers | None = None
    held: Answers | None = None
    fits_beside_updates: bool = False  # the update needs the reward model of its own iteration

    @property
    def backbone(self) -> Backbone:
        """The policy's model and tokenizer."""
        return self.policy.backbone

    def sample(self, iteration: int, asked: int, held: int, report: Report) -> None:
        """Sample responses: more prompts than are learned from only when more slates are wanted."""
        config = self.config
        learn = config.sampling.prompts
        train = draw_prompts(self.train, (iteration - 1) * learn, max(learn, asked), config.seed)
        apart = draw_prompts(self.heldout, (iteration - 1) * held, held, config.seed)
        each = config.sampling.responses
        with report("sample", f"{len(train) + len(apart)} prompts, {each} responses each") as progress:
            stream = torch_stream(config.seed, iteration, "sample")
            prompts = [*train, *apart]
            both = answer(self.policy, prompts, each, config, f"policy-{iteration - 1}", stream, progress)
        # Never a held-out prompt, however few train prompts there are.
        self.learned = take(both, 0, min(learn, len(train)))
        self.asked, self.held = take(both, 0, len(train)), take(both, len(train), len(both.prompts))

    def slates(self, iteration: int, asked: int, held: int, reward_model: str) -> list[Slate]:
        """Slates of the sampled answers, with the scores that the reward model gives them now."""
        assert self.asked is not None
        assert self.held is not None
        made: list[Slate] = []
        # Held-out slates first: people are given the newest, and those should be the ones that teach.
        for answers, count in ((self.held, held), (self.asked, asked)):
            if count:
                budget = self.config.token_budget
                scores = reward_scores(self.reward_model, self.backbone, answers, budget) if reward_model else []
                made += make_slates(answers, count, self.config, iteration, scores, reward_model)
        return made

    def begin_fit(self, iteration: int, chosen: Sequence[LabeledSlate], progress: Progress) -> Callable[[], float]:
        """Fit the head exactly, or the backbone with it by gradient steps; at once, on the policy's own device."""
        config, settings, model, pad_id = self.config, self.config.reward_model, self.reward_model, self.backbone.pad_id
        if not self.references:
            assert self.learned is not None
            self.references = candidate_groups(self.backbone, take(self.learned, 0, REFERENCE_PROMPTS))
        examples = [encode_slate(self.backbone, s) for s in chosen]
        if settings.adaptation == "head":
            losses = fit_head(model, examples, settings.ridge, pad_id, self.states)
        else:
            how = Fit(
                settings.epochs,
                settings.learning_rate,
                settings.head_learning_rate,
                settings.slates_per_step,
                centring=settings.centring,
                token_budget=config.token_budget,
            )
            losses = fit(model, examples, how, pad_id, torch_stream(config.seed, iteration, "fit"), progress)
        normalise(model, self.references, pad_id, config.token_budget)
        late = losses[len(losses) // 2 :]
        return lambda: sum(late) / len(late)

    def measure(self, held: Sequence[LabeledSlate]) -> Accuracy:
        """Accuracy and calibration on held-out prompts."""
        examples = [encode_slate(self.backbone, s) for s in held]
        return measure(self.reward_model, examples, self.backbone.pad_id, self.config.token_budget)

    def improve(self, iteration: int, report: Report) -> Improved:
        """Update the policy by the recipe on the sampled answers."""
        config, answers = self.config, self.learned
        assert answers is not None
        recipe, budget, temperature = config.make_recipe(), config.token_budget, config.sampling.temperature
        with report("update", recipe.name) as progress:
            learner = self._learner()
            scores = reward_scores(self.reward_model, self.backbone, answers, budget)
            ids, sampled = answers.prompt_ids, answers.sampled
            rollout = assemble(self.policy, learner.critic, ids, sampled, scores, temperature, budget)
            stream = torch_stream(config.seed, iteration, "update")
            figures = update(learner, rollout, recipe, temperature, budget, stream, progress)
        pairs = [(p, c) for p, cs in zip(answers.prompts, answers.candidates, strict=True) for c in cs]
        golds = [g for g in self.gold(pairs) if g is not None]
        return Improved(figures, figures["reward_mean"], sum(golds) / len(golds) if golds else None)

    def _learner(self) -> Learner:
        """Made on first use: a critic, if the recipe has one, begins as the reward model of that moment."""
        if self.learner is None:
            recipe = self.config.make_recipe()
            critic = make_critic(self.reward_model) if recipe.critic else None
            self.learner = make_learner(self.policy, critic, recipe)
        return self.learner

    def evaluate(self, iteration: int, figures: Mapping[str, float], report: Report) -> dict[str, Any]:
        """One response to each evaluation prompt; before the first update, of the untouched model."""
        config, model = self.config, self.reward_model if iteration else None
        prompts = draw_prompts(self.heldout, 0, min(config.evaluation.prompts, len(self.heldout)), config.seed)
        with report("evaluate", f"{len(prompts)} held-out prompts" if iteration else "the untouched model") as progress:
            found = evaluate(self.policy, model, prompts, self.gold, config, f"policy-{iteration}", progress)
        return found | ({"entropy": figures["entropy"]} if iteration else {})

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        learner = self._learner()
        return {
            "policy": trained_state(self.policy.model),
            "reward_model": trained_state(self.reward_model),
            "critic": trained_state(learner.critic) if learner.critic else None,
            "policy_optimizer": learner.policy_optimizer.state_dict(),
            "critic_optimizer": learner.critic_optimizer.state_dict() if learner.critic_optimizer else None,
            "beta": learner.beta,
            "references": [[list(g.prompt), [list(c) for c in g.candidates]] for g in self.references],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a checkpoint."""
        restore(self.policy.model, state["policy"])
        restore(self.reward_model, state["reward_model"])
        learner = self._learner()
        learner.policy_optimizer.load_state_dict(state["policy_optimizer"])
        if learner.critic is not None and learner.critic_optimizer is not None:
            restore(learner.critic, state["critic"])
            learner.critic_optimizer.load_state_dict(state["critic_optimizer"])
        learner.beta = state["beta"]
        self.references = [Group(tuple(p), tuple(tuple(c) for c in cs)) for p, cs in state["references"]]

    def close(self) -> None:
        """Nothing is held."""


def make_language_subject(config: RunConfig, prompts: Sequence[Prompt], gold: GoldFn) -> LanguageSubject:
    """Load the model and make policy and reward model from it.

    Raises UserError before any work: a split without prompts, a model that cannot be had, a prompt that is too long.
    """
    splits = {split: tuple(p for p in prompts if p.split == split) for split in ("train", "heldout")}
    for split, found in splits.items():
        if not found:
            raise UserError(f"the project has no {split} prompts: `prefloop import FILE --split {split}` adds some")
    torch.manual_seed(config.seed)
    backbone = load_backbone(config.model.name, config.seed)
    if torch.cuda.is_available():
        backbone.model.to("cuda")  # type: ignore[arg-type]
    check_layout(backbone)
    check_prompts(backbone, prompts, config.sampling.max_new_tokens)
    # The reward model copies the backbone before the policy's adapters are put into it.
    reward_model = make_reward_model(backbone, config.reward_model.adaptation, config.model.lora_rank)
    policy = make_policy(backbone, config.model.adaptation, config.model.lora_rank)
    return LanguageSubject(config, gold, splits["train"], splits["heldout"], policy, reward_model)
