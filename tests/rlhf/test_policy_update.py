"""The update, once for every recipe: what must hold for all of them, and the gradient against a plain computation."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from rlhf.backbones import load_backbone
from rlhf.divergences import k1
from rlhf.logprobs import token_logprobs
from rlhf.optimiser_step import Learner, Setting, make_learner
from rlhf.packing import Group, pack
from rlhf.policy import Policy, make_policy
from rlhf.policy_update import update
from rlhf.recipes import GRPO, PPO, RECIPES, Recipe
from rlhf.reward_model import Adaptation, ScoreModel, make_reward_model
from rlhf.rollout import Rollout, assemble, collect
from rlhf.sampling import Sampled
from rlhf.targets import explained_variance, make_targets

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
recipes = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())


def make(recipe: Recipe, adaptation: Adaptation = "full", rate: float = 1.0) -> Learner:
    """A learner on the tiny model that takes plain gradient steps, so that a wrong scale shows."""
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


def logps(policy: Policy, model: nn.Module) -> list[Tensor]:
    """Log-probabilities of all responses, from sequences computed one by one."""
    rows = []
    for prompt, responses in zip(PROMPTS, RESPONSES, strict=True):
        for response in responses:
            packed = pack([Group(prompt, (response,))], policy.backbone.pad_id)
            rows.append(token_logprobs(model, packed, TEMPERATURE)[0][0])
    return rows


@torch.no_grad()
def all_logps(policy: Policy, model: nn.Module) -> Tensor:
    """(20,) the same, in one row."""
    return torch.cat(logps(policy, model))


def roll(learner: Learner, rewards: list = REWARDS, noise: float = 0.4) -> Rollout:
    """A rollout whose sampling policy was a little different, so that ratios leave the clip range on both sides."""
    chance = torch.Generator().manual_seed(11)
    flat = iter(all_logps(learner.policy, learner.policy.model).split([len(r) for rs in RESPONSES for r in rs]))
    sampled = []
    for responses in RESPONSES:
        row = []
        for ids in responses:
            old = next(flat) + noise * torch.randn(len(ids), generator=chance)
            row.append(Sampled(ids, tuple(old.tolist()), True))
        sampled.append(row)
    groups, missing = collect(PROMPTS, sampled, rewards, None, BASELINES)
    return assemble(learner.policy, learner.critic, groups, LONGEST, TEMPERATURE, CUT, missing)


def step(learner: Learner, rollout: Rollout, recipe: Recipe, budget: int = WHOLE) -> dict[str, float]:
    return update(learner, rollout, recipe, Setting(TEMPERATURE, budget), torch.Generator().manual_seed(3))


def once(recipe: Recipe) -> Recipe:
    return replace(recipe, epochs=1, minibatches=1, max_grad_norm=1e9)


def without_kl(recipe: Recipe) -> Recipe:
    return replace(recipe, reward_kl=None, loss_kl=None)


def parameters(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


@recipes
def test_cutting_into_micro_batches_changes_nothing(recipe: Recipe) -> None:
    recipe = replace(recipe, max_grad_norm=1e9)
    found = []
    for budget in (WHOLE, CUT):
        learner = make(recipe, rate=0.05)
        metrics = step(learner, roll(learner), recipe, budget)
        found.append((metrics, parameters(learner.policy.model), learner.critic and parameters(learner.critic)))
    (whole, policy, critic), (cut, policy_cut, critic_cut) = found
    assert whole["grad_norm"] > 1e-3
    assert whole["steps"] == recipe.epochs * recipe.minibatches
    assert cut == pytest.approx(whole, rel=1e-4, abs=1e-5)
    for a, b in zip([*policy, *(critic or [])], [*policy_cut, *(critic_cut or [])], strict=True):
        # Rounding grows with the gradient: a ratio of whole responses (rloo) makes large ones.
        torch.testing.assert_close(a, b, atol=1e-5 * max(1.0, whole["grad_norm"]), rtol=0)


@recipes
def test_zero_advantage_gives_zero_gradient_and_no_nan(recipe: Recipe) -> None:
    recipe = without_kl(recipe)
    learner = make(recipe)
    if learner.critic is not None:
        nn.init.zeros_(learner.critic.head.weight)  # else a critic that expects something makes 0 a disappointment
    before = parameters(learner.policy.model)
    metrics = step(learner, roll(learner, [[0.0] * len(r) for r in REWARDS]), recipe)
    assert all(value == value for value in metrics.values())
    assert metrics["grad_norm"] == 0
    assert metrics["zero_std_groups"] == 1
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(learner.policy.model), strict=True))


@recipes
def test_the_step_raises_what_was_better_and_lowers_what_was_worse(recipe: Recipe) -> None:
    recipe = once(without_kl(recipe))
    learner = make(recipe, rate=0.05)
    rollout = roll(learner, noise=0.0)
    advantages = make_targets(rollout, recipe, 0.0).estimate.advantages
    before = all_logps(learner.policy, learner.policy.model)
    step(learner, rollout, recipe)
    moved = all_logps(learner.policy, learner.policy.model) - before
    gain = (advantages[rollout.mask] * moved).sum()
    assert gain > 1e-3
    best, worst = advantages[rollout.mask].argmax(), advantages[rollout.mask].argmin()
    assert moved[best] > 0 > moved[worst]


@recipes
def test_the_first_pass_of_real_samples_is_on_policy(recipe: Recipe) -> None:
    learner = make(once(recipe))
    metrics = step(learner, roll(learner, noise=0.0), once(recipe))
    assert metrics["sampling_mismatch"] == pytest.approx(0, abs=1e-5)
    assert metrics["ratio_max"] == pytest.approx(1, abs=1e-5)
    assert metrics["clip_fraction"] == 0
    assert metrics["kl_per_sequence"] == pytest.approx(0, abs=1e-4)


def test_entropy_and_length_are_per_token_and_per_response() -> None:
    recipe = once(GRPO)
    learner = make(recipe)
    packed = pack([Group(p, tuple(r)) for p, r in zip(PROMPTS, RESPONSES, strict=True)], 0)
    entropy = token_logprobs(learner.policy.model, packed, TEMPERATURE)[1][packed.mask].mean().item()
    metrics = step(learner, roll(learner), recipe)
    assert metrics["entropy"] == pytest.approx(entropy, rel=1e-5)
    assert metrics["length"] == pytest.approx(20 / 7)  # 4+1+2+3+5+3+2 tokens in 7 responses
    assert metrics["reward_mean"] == pytest.approx(4.0 / 7)  # 1−0.5+0.3+2+0.7−1+1.5


def gradient_of(learner: Learner, loss: Callable[[], Tensor], module: nn.Module) -> list[Tensor]:
    module.zero_grad()
    loss().backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()]
    module.zero_grad(set_to_none=True)
    return found


def moved_by(before: list[Tensor], after: list[Tensor], rate: float) -> list[Tensor]:
    return [(a - b) / rate for a, b in zip(before, after, strict=True)]


def test_grpo_is_its_formula_on_plain_sequences() -> None:
    # −1/N Σ_i 1/|y_i| Σ_t [min(ρA, clip(ρ, 0.8, 1.2)A) − β·(e^(ref−logp) − (ref−logp) − 1)],
    # A = (R − mean)/(std + 1e-4).
    recipe = replace(once(GRPO), loss_kl=replace(GRPO.loss_kl, beta=0.5))  # type: ignore[type-var]
    learner = make(recipe, rate=0.5)
    with torch.no_grad():  # a policy that has left its reference, so that the penalty counts
        learner.policy.model.get_decoder().embed_tokens.weight.mul_(1.5)
    rollout = roll(learner)
    reference = learner.policy.reference_model
    assert reference is not None

    def loss() -> Tensor:
        total, n = torch.zeros(()), 0
        new, ref = logps(learner.policy, learner.policy.model), [x.detach() for x in logps(learner.policy, reference)]
        for scores in REWARDS:
            r = torch.tensor(scores)
            advantage = (r - r.mean()) / (r.std() + 1e-4) if len(r) > 1 else torch.zeros(1)
            for a in advantage:
                rho = (new[n] - rollout.old_logp[n, : len(new[n])]).exp()
                gain = torch.minimum(rho * a, rho.clamp(0.8, 1.2) * a)
                d = ref[n] - new[n]
                total, n = total - (gain - 0.5 * (d.exp() - d - 1)).mean() / COUNT, n + 1
        return total

    expected = gradient_of(learner, loss, learner.policy.model)
    before = parameters(learner.policy.model)
    metrics = step(learner, rollout, recipe)
    for got, want in zip(moved_by(before, parameters(learner.policy.model), 0.5), expected, strict=True):
        torch.testing.assert_close(got, want, atol=2e-6, rtol=1e-3)
    assert metrics["policy_loss"] != 0
    assert metrics["loss_kl"] > 1e-3
    assert 0 < metrics["clip_fraction"] < 1


def test_ppo_is_its_formula_on_plain_sequences() -> None:
    # Rewards −β·(old − ref) per token and R on the last; A by GAE(λ=0.95), whitened over all 20 tokens; token mean of
    # the clipped surrogate; value loss ½·max over the clip, from returns of the raw A.
    recipe = replace(once(PPO), reward_kl=replace(PPO.reward_kl, beta=0.3, target=None))  # type: ignore[type-var]
    learner = make(recipe, rate=0.5)
    with torch.no_grad():
        learner.policy.model.get_decoder().embed_tokens.weight.mul_(1.5)
    rollout = roll(learner)
    critic, reference = learner.critic, learner.policy.reference_model
    assert critic is not None
    assert reference is not None
    assert rollout.values is not None
    rollout.values.add_(0.3 * rollout.mask)  # sampling-time values that the critic has moved away from
    flat = [(p, r) for p, rs in zip(PROMPTS, RESPONSES, strict=True) for r in rs]
    scores = [r for row in REWARDS for r in row]

    def plain_values(model: ScoreModel) -> list[Tensor]:
        rows = []
        for p, r in flat:
            states = model.decoder(input_ids=torch.tensor([[*p, *r]])).last_hidden_state[0, len(p) - 1 : -1]
            rows.append(model.head(states)[:, 0])
        return rows

    ref = [x.detach() for x in logps(learner.policy, reference)]
    raw, returns = [], []
    for n, (_, response) in enumerate(flat):
        t = len(response)
        v = rollout.values[n, :t]
        reward = -0.3 * (rollout.old_logp[n, :t] - ref[n])
        reward[-1] += scores[n]
        delta = reward + torch.cat([v[1:], torch.zeros(1)]) - v
        raw.append(torch.stack([sum(0.95 ** (u - s) * delta[u] for u in range(s, t)) for s in range(t)]))
        returns.append(raw[-1] + v)
    every = torch.cat(raw)
    white = [(a - every.mean()) / every.std() for a in raw]

    def policy_loss() -> Tensor:
        new = logps(learner.policy, learner.policy.model)
        terms = []
        for n, a in enumerate(white):
            rho = (new[n] - rollout.old_logp[n, : len(a)]).exp()
            terms.append(torch.minimum(rho * a, rho.clamp(0.8, 1.2) * a))
        return -torch.cat(terms).sum() / 20

    def value_loss() -> Tensor:
        terms = []
        for n, v in enumerate(plain_values(critic)):
            old = rollout.values[n, : len(v)]
            near = torch.clamp(v, old - 0.2, old + 0.2)
            terms.append(torch.maximum((v - returns[n]) ** 2, (near - returns[n]) ** 2) / 2)
        return torch.cat(terms).sum() / 20

    expected = gradient_of(learner, policy_loss, learner.policy.model)
    expected_critic = gradient_of(learner, value_loss, critic)
    before, before_critic = parameters(learner.policy.model), parameters(critic)
    metrics = step(learner, rollout, recipe)
    for got, want in zip(moved_by(before, parameters(learner.policy.model), 0.5), expected, strict=True):
        torch.testing.assert_close(got, want, atol=2e-6, rtol=1e-3)
    for got, want in zip(moved_by(before_critic, parameters(critic), CRITIC_RATE), expected_critic, strict=True):
        torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-3)
    sequence_kl = sum((k1(rollout.old_logp[n, : len(r)], r)).sum().item() for n, r in enumerate(ref)) / COUNT
    assert metrics["kl_per_sequence"] == pytest.approx(sequence_kl, rel=1e-4)
    assert metrics["kl_per_token"] == pytest.approx(sequence_kl * COUNT / 20, rel=1e-4)
    assert metrics["beta"] == 0.3
    assert metrics["value_loss"] > 0


def test_beta_adapts_to_the_kl_of_the_samples() -> None:
    # KL ≈ 0 is far below the target 6: error −0.2, and β·(1 − 0.2·7/100) after seven samples.
    recipe = replace(PPO, reward_kl=replace(PPO.reward_kl, horizon=100))  # type: ignore[type-var]
    learner = make(recipe)
    metrics = step(learner, roll(learner, noise=0.0), recipe)
    assert metrics["beta"] == 0.05
    assert learner.beta == pytest.approx(0.05 * (1 - 0.2 * 7 / 100))


def test_the_gradient_is_clipped_to_its_norm() -> None:
    recipe = replace(once(GRPO), max_grad_norm=0.01)
    learner = make(recipe)
    before = parameters(learner.policy.model)
    metrics = step(learner, roll(learner), recipe)
    assert metrics["grad_norm"] > 0.02  # before the clip
    change = torch.cat([d.flatten() for d in moved_by(before, parameters(learner.policy.model), 1.0)])
    assert change.norm().item() == pytest.approx(0.01, rel=1e-2)


def test_missing_rewards_are_left_out_and_counted() -> None:
    learner = make(GRPO)
    nan = float("nan")
    rollout = roll(learner, [[1.0, None, nan, 2.0], [None], [-1.0, 1.5]])
    assert rollout.missing == 3
    assert rollout.scores.tolist() == [1.0, 2.0, -1.0, 1.5]
    assert rollout.group.tolist() == [0, 0, 1, 1]
    assert [g.prompt for g in rollout.groups] == [PROMPTS[0], PROMPTS[2]]
    assert [g.candidates for g in rollout.groups] == [(RESPONSES[0][0], RESPONSES[0][3]), tuple(RESPONSES[2])]
    full = roll(learner)
    for mine, his in enumerate([0, 3, 5, 6]):
        for name in ("old_logp", "ref_logp", "mask"):
            torch.testing.assert_close(getattr(rollout, name)[mine], getattr(full, name)[his, :4])
    assert step(learner, rollout, GRPO)["missing_rewards"] == 3
    with pytest.raises(ValueError, match="no response to learn from: 7 rewards are missing"):
        roll(learner, [[None] * len(row) for row in REWARDS])


@pytest.mark.parametrize("adaptation", ["lora", "full"])
def test_the_reference_never_moves(adaptation: Adaptation) -> None:
    untouched = load_backbone("tiny").model
    recipe = replace(GRPO, max_grad_norm=1e9)
    learner = make(recipe, adaptation)
    policy = learner.policy
    assert (policy.reference_model is None) == (adaptation == "lora")
    base = all_logps(policy, untouched)
    first = roll(learner)
    for _ in range(3):
        step(learner, first, recipe)
    assert not torch.allclose(all_logps(policy, policy.model), base, atol=1e-3)
    with policy.reference() as reference:
        assert torch.equal(all_logps(policy, reference), base)
    # And afterwards the policy is itself again.
    assert not torch.allclose(all_logps(policy, policy.model), base, atol=1e-3)
    rollout = roll(learner)
    torch.testing.assert_close(rollout.ref_logp, first.ref_logp, atol=1e-6, rtol=0)
    torch.testing.assert_close(rollout.ref_logp[rollout.mask], base, atol=1e-5, rtol=0)


def test_lora_trains_its_adapters_alone() -> None:
    learner = make(GRPO, "lora")
    trained = learner.policy.trained()
    assert trained
    assert all("lora_" in name for name in trained)
    frozen = {name: p.detach().clone() for name, p in learner.policy.model.named_parameters() if name not in trained}
    step(learner, roll(learner), GRPO)
    assert all(torch.equal(p, dict(learner.policy.model.named_parameters())[name]) for name, p in frozen.items())


def test_a_recipe_gets_a_critic_exactly_when_it_has_one() -> None:
    policy = make_policy(load_backbone("tiny"), "full", 4)
    with pytest.raises(ValueError, match="'ppo' needs a critic"):
        make_learner(policy, None, PPO)
    with pytest.raises(ValueError, match="'grpo' has no critic"):
        make_learner(policy, make_reward_model(policy.backbone, "full", 4), GRPO)


def test_explained_variance_by_hand() -> None:
    returns, mask = torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]])
    # Var(R) = 1. V = (1, 2): R − V = (0, 1), variance ¼. Perfect: 1. Constant returns: 0.
    assert explained_variance(torch.tensor([[1.0, 2.0, 0.0]]), returns, mask) == pytest.approx(0.75)
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(returns, torch.ones(1, 3), mask) == 0
