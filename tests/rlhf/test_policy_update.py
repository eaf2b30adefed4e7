"""The update: gradients against a plain computation, and the figures it reports. See test_every_recipe.py too."""

from dataclasses import replace

import pytest
import torch
from policy_world import (
    COUNT,
    CRITIC_RATE,
    CUT,
    PROMPTS,
    RESPONSES,
    REWARDS,
    TEMPERATURE,
    WHOLE,
    all_logps,
    gradient_of,
    logps,
    make,
    moved_by,
    once,
    parameters,
    roll,
    step,
)
from torch import Tensor

from labeling.records import UserError
from rlhf.backbones import load_backbone
from rlhf.divergences import k1
from rlhf.logprobs import token_logprobs
from rlhf.optimiser_step import make_learner
from rlhf.packing import Group, pack
from rlhf.policy import make_policy
from rlhf.recipes import GRPO, PPO
from rlhf.reward_model import Adaptation, ScoreModel, make_reward_model


def test_entropy_and_length_are_per_token_and_per_response() -> None:
    recipe = once(GRPO)
    learner = make(recipe)
    packed = pack([Group(p, tuple(r)) for p, r in zip(PROMPTS, RESPONSES, strict=True)], 0)
    entropy = token_logprobs(learner.policy.model, packed, TEMPERATURE)[1][packed.mask].mean().item()
    metrics = step(learner, roll(learner), recipe)
    assert metrics["entropy"] == pytest.approx(entropy, rel=1e-5)
    assert metrics["length"] == pytest.approx(20 / 7)  # 4+1+2+3+5+3+2 tokens in 7 responses


def test_a_gradient_that_is_no_number_stops_the_update_before_it_is_taken() -> None:
    learner = make(once(GRPO))
    rollout = roll(learner)
    rollout.old_logp[0, 0] = torch.nan
    before = parameters(learner.policy.model)
    with pytest.raises(UserError, match="a gradient of size nan: lower learning_rate or max_grad_norm"):
        step(learner, rollout, once(GRPO))
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(learner.policy.model), strict=True))


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
    # Samples that the reference likes less by 10 nats a token are far above it: error +0.2.
    learner = make(recipe)
    rollout = roll(learner, noise=0.0)
    step(learner, replace(rollout, ref_logp=rollout.ref_logp - 10.0), recipe)
    assert learner.beta == pytest.approx(0.05 * (1 + 0.2 * 7 / 100))


@pytest.mark.parametrize("budget", [WHOLE, CUT])
def test_recomputed_log_probabilities_are_the_policys_own_and_how_far_the_noted_were_off_is_told(budget: int) -> None:
    learner = make(once(GRPO))
    with torch.no_grad():  # its own, and not those of the reference
        learner.policy.model.get_decoder().embed_tokens.weight.mul_(1.5)
    noted, rollout = roll(learner), roll(learner, budget=budget, recompute=True)
    own = all_logps(learner.policy, learner.policy.model)
    torch.testing.assert_close(rollout.old_logp[rollout.mask], own, atol=1e-5, rtol=0)
    metrics = step(learner, rollout, once(GRPO))
    assert metrics["ratio_max"] == pytest.approx(1.0, abs=1e-4)
    assert metrics["sampling_mismatch"] == pytest.approx((noted.old_logp[noted.mask] - own).abs().mean().item())


def test_the_optimiser_of_a_run_changes_nothing_where_there_is_no_gradient() -> None:
    recipe = replace(once(GRPO), loss_kl=None)
    policy = make_policy(load_backbone("tiny"), "full", 4)
    learner = make_learner(policy, None, recipe)  # AdamW as it is, without a decay of weights
    assert learner.policy_optimizer.param_groups[0]["lr"] == recipe.learning_rate
    before = parameters(policy.model)
    step(learner, roll(learner, [[0.5] * len(r) for r in RESPONSES]), recipe)
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(policy.model), strict=True))


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
