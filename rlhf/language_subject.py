"""A language model as the loop's subject: it answers prompts, and its slates are answers to one prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from labeling.records import LabeledSlate, Prompt, Slate, UserError
from rlhf.answers import Answers, take
from rlhf.auxiliary import Likelihood, text_likelihood
from rlhf.backbones import Backbone, load_backbone
from rlhf.checkpoints import restore, trained_state
from rlhf.diagnosis import LANGUAGE, Verdicts
from rlhf.logprobs import check_layout
from rlhf.loop_steps import (
    answer,
    candidate_groups,
    check_prompts,
    distinct_n,
    draw_prompts,
    evaluate,
    make_slates,
    reward_scores,
)
from rlhf.online_loop import GoldFn, Improved, Progress, Report
from rlhf.optimiser_step import Learner, Setting, make_learner
from rlhf.packing import Group
from rlhf.policy import Policy, make_policy
from rlhf.policy_samples import draw, gold_of_best, tempered_likelihood
from rlhf.policy_update import update
from rlhf.pretraining_texts import Text, text_groups
from rlhf.random_streams import python_stream, torch_stream
from rlhf.recipes import Recipe
from rlhf.resting import lay_down, pick_up, rest
from rlhf.reward_head import States, fit_head
from rlhf.reward_model import ScoreModel, make_critic, make_reward_model, normalise, score_groups
from rlhf.reward_training import Accuracy, Fit, encode_slate, fit, measure
from rlhf.rewards import Scorer
from rlhf.rollout import Rollout, assemble
from rlhf.run_config import RunConfig
from rlhf.scoring import model_scorer, rule_scorer
from rlhf.shaping import RunningUnit, adapt_temperature
from rlhf.targets import empty_figures

REFERENCE_PROMPTS = 8  # the answers of the untouched policy to these set the reward model's zero and unit


@dataclass
class LanguageSubject:
    """What a run of a language model has learned, and the answers of the iteration under way.

    scorer: where rewards come from. temperature: what the next samples are drawn at. pretraining: texts as tokens.
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
    scorer: Scorer
    temperature: float
    pretraining: tuple[Group, ...] = ()
    learner: Learner | None = None
    references: list[Group] = field(default_factory=list)
    states: States = field(default_factory=dict)
    learned: Answers | None = None
    asked: Answers | None = None
    held: Answers | None = None
    fits_beside_updates: bool = False  # the update needs the reward model of its own iteration
    verdicts: Verdicts = LANGUAGE

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
            version = f"policy-{iteration - 1}"
            # Only the first optimiser step has the weights that sampled.
            note = min(learn, len(train)) if self._keeps_forwards else 0
            both = answer(self.policy, prompts, each, config, version, stream, progress, self.temperature, note)
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

    def begin_fit(
        self, iteration: int, chosen: Sequence[LabeledSlate], afresh: bool, progress: Progress
    ) -> Callable[[], float]:
        """Fit the head exactly, or the backbone with it by gradient steps; at once, on the policy's own device."""
        config, settings, model, pad_id = self.config, self.config.reward_model, self.reward_model, self.backbone.pad_id
        if afresh:
            with torch.random.fork_rng():
                torch.manual_seed(config.seed)
                untrained = load_backbone(config.model.name, config.seed)
                fresh = make_reward_model(untrained, settings.adaptation, config.model.lora_rank)
            model.load_state_dict(fresh.state_dict())
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
            pick_up(model.decoder)
            losses = fit(model, examples, how, pad_id, torch_stream(config.seed, iteration, "fit"), progress)
            lay_down(model.decoder)
        normalise(model, self.references, pad_id, config.token_budget)
        late = losses[len(losses) // 2 :]
        return lambda: sum(late) / len(late)

    def predict(self, labeled: Sequence[LabeledSlate]) -> list[tuple[float, ...]]:
        """Raw scores, slate by slate."""
        groups, model = [encode_slate(self.backbone, s).group for s in labeled], self.reward_model
        scores = score_groups(model, groups, self.backbone.pad_id, self.config.token_budget) * model.std + model.mean
        return [tuple(part.tolist()) for part in scores.split([len(g.candidates) for g in groups])]

    def measure(self, held: Sequence[LabeledSlate]) -> Accuracy:
        """Accuracy and calibration on held-out prompts."""
        examples = [encode_slate(self.backbone, s) for s in held]
        return measure(self.reward_model, examples, self.backbone.pad_id, self.config.token_budget)

    def improve(self, iteration: int, report: Report) -> Improved:
        """Update the policy by the recipe on the sampled answers."""
        config, answers, budget = self.config, self.learned, self.config.token_budget
        assert answers is not None
        recipe, setting = config.make_recipe(), Setting(self.temperature, budget)
        with report("update", recipe.name) as progress:
            learner = self._learner()
            drawn = draw(
                recipe,
                self.scorer,
                answers,
                lambda attempt: self._more(iteration, attempt),
                lambda found: self._again(iteration, found, "greedy", 1, 0.0),
                torch_stream(config.seed, iteration, "filter"),
            )
            if drawn.groups:
                longest, recompute = config.sampling.max_new_tokens, config.sampling.old_logp == "recomputed"
                rollout = assemble(
                    self.policy,
                    learner.critic,
                    drawn.groups,
                    longest,
                    self.temperature,
                    budget,
                    drawn.missing,
                    drawn.unused,
                    recompute,
                    self._keeps_forwards,
                )
                terms = self._likelihoods(iteration, recipe, rollout, answers)
                rest(self.reward_model.decoder)  # a new critic or a checkpoint has read it
                stream = torch_stream(config.seed, iteration, "update")
                figures = update(learner, rollout, recipe, setting, stream, terms, progress)
            else:
                figures = empty_figures(drawn.missing, drawn.unused)
        texts = [text for row in answers.texts for text in row]
        figures = figures | drawn.figures | {"distinct_2": distinct_n(texts, 2), "temperature": self.temperature}
        self._adapt_temperature(figures)
        if recipe.tempered is not None and "sampling_entropy" in figures:
            figures["tempered_temperature"] = recipe.tempered.temperature(figures["sampling_entropy"])
        pairs = [(p, c) for p, cs in zip(answers.prompts, answers.candidates, strict=True) for c in cs]
        golds = iter(self.gold(pairs))
        by_prompt = [[next(golds) for _ in cs] for cs in answers.candidates]
        best = gold_of_best(drawn.first, by_prompt)
        if best is not None:
            figures["gold_of_best"] = best
        found = [g for row in by_prompt for g in row if g is not None]
        return Improved(figures, figures.get("reward_mean"), sum(found) / len(found) if found else None)

    @property
    def _keeps_forwards(self) -> bool:
        """Whether forwards are noted for the update, which pays where its first optimiser step takes all samples."""
        return self.config.make_recipe().minibatches == 1 and self.config.sampling.old_logp == "sampled"

    def _more(self, iteration: int, attempt: int) -> Answers:
        """Answers to as many other train prompts, for filters that left too few."""
        config, count = self.config, self.config.sampling.prompts
        prompts = draw_prompts(self.train, (iteration - 1 + attempt - 1) * count, count, config.seed)
        stream = torch_stream(config.seed, iteration, "sample again", attempt)
        version, each = f"policy-{iteration - 1}", config.sampling.responses
        return answer(self.policy, prompts, each, config, version, stream, temperature=self.temperature)

    def _again(self, iteration: int, answers: Answers, purpose: str, each: int, temperature: float) -> Answers:
        """Other responses to the same prompts."""
        stream = torch_stream(self.config.seed, iteration, purpose)
        version = f"policy-{iteration - 1}"
        return answer(self.policy, answers.prompts, each, self.config, version, stream, temperature=temperature)

    def _likelihoods(self, iteration: int, recipe: Recipe, rollout: Rollout, answers: Answers) -> list[Likelihood]:
        """The recipe's terms on responses outside the rollout."""
        terms: list[Likelihood] = []
        if recipe.pretraining is not None:
            count = min(len(self.pretraining), recipe.pretraining.texts * recipe.minibatches)
            texts = python_stream(self.config.seed, iteration, "pretraining").sample(self.pretraining, count)
            terms.append(text_likelihood("pretraining", texts, recipe.pretraining.ptx))
        if recipe.tempered is not None:
            # The surprise of the sampled tokens is an unbiased estimate of the entropy, at no cost.
            entropy = -(rollout.old_logp[rollout.mask]).mean().item()
            temperature = recipe.tempered.temperature(entropy)
            found = self._again(iteration, answers, "tempered", self.config.sampling.responses, temperature)
            term = tempered_likelihood(recipe, self.scorer, found, rollout.longest)
            terms += [term] if term else []
        return terms

    def _adapt_temperature(self, figures: Mapping[str, float]) -> None:
        sampling = self.config.sampling
        low, high = sampling.temperature_range
        for key, target in (("sampling_entropy", sampling.entropy_target), ("distinct_2", sampling.distinct_target)):
            if target is not None and key in figures:
                self.temperature = adapt_temperature(self.temperature, figures[key], target, low, high)

    def _learner(self) -> Learner:
        """Made on first use: a critic, if the recipe has one, begins as the reward model of that moment."""
        if self.learner is None:
            recipe = self.config.make_recipe()
            critic = make_critic(self.reward_model) if recipe.critic else None
            self.learner = make_learner(self.policy, critic, recipe)
        return self.learner

    def evaluate(self, iteration: int, figures: Mapping[str, float], report: Report) -> dict[str, Any]:
        """One response to each evaluation prompt; before the first update, of the untouched model."""
        config, model = self.config, self.reward_model if self.references else None
        prompts = draw_prompts(self.heldout, 0, min(config.evaluation.prompts, len(self.heldout)), config.seed)
        with report("evaluate", f"{len(prompts)} held-out prompts" if iteration else "the untouched model") as progress:
            found = evaluate(self.policy, model, prompts, self.gold, config, f"policy-{iteration}", progress)
        return found | {key: figures[key] for key in ("entropy",) if key in figures}

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
            "loss_beta": learner.loss_beta,
            "score_unit": [learner.unit.count, learner.unit.mean, learner.unit.squares],
            "updates": learner.updates,
            "temperature": self.temperature,
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
        learner.beta, learner.loss_beta = state["beta"], state["loss_beta"]
        learner.unit, learner.updates = RunningUnit(*state["score_unit"]), state["updates"]
        self.temperature = state["temperature"]
        self.references = [Group(tuple(p), tuple(tuple(c) for c in cs)) for p, cs in state["references"]]

    def close(self) -> None:
        """Nothing is held."""


def make_language_subject(
    config: RunConfig,
    prompts: Sequence[Prompt],
    gold: GoldFn,
    rule: GoldFn | None = None,
    texts: Sequence[Text] = (),
) -> LanguageSubject:
    """Load the model and make policy and reward model from it.

    rule: what rewards the policy if `reward.source` is "rule". texts: for recipes with a pretraining term.

    Raises UserError before any work: a split without prompts, a model that cannot be had, a prompt that is too long.
    """
    splits = {split: tuple(p for p in prompts if p.split == split) for split in ("train", "heldout")}
    for split, found in splits.items():
        if not found:
            raise UserError(f"the project has no {split} prompts: `prefloop import FILE --split {split}` adds some")
    torch.manual_seed(config.seed)
    backbone = load_backbone(config.model.name, config.seed)
    if torch.cuda.is_available():
        backbone.model.to("cuda")
    check_layout(backbone)
    check_prompts(backbone, prompts, config.sampling.max_new_tokens)
    pretraining = tuple(text_groups(backbone, texts))
    if config.make_recipe().pretraining is not None and not pretraining:
        raise UserError("the recipe has a pretraining term and there are no texts for it: set pretraining_texts")
    # The reward model copies the backbone before the policy's adapters are put into it.
    reward_model = make_reward_model(backbone, config.reward_model.adaptation, config.model.lora_rank)
    lay_down(reward_model.decoder)
    policy = make_policy(backbone, config.model.adaptation, config.model.lora_rank)
    scorer = (
        rule_scorer(rule, backbone)
        if config.reward.source == "rule" and rule is not None
        else model_scorer(reward_model, backbone, config.token_budget)
    )
    temperature = config.sampling.temperature
    train, heldout = splits["train"], splits["heldout"]
    return LanguageSubject(config, gold, train, heldout, policy, reward_model, scorer, temperature, pretraining)
