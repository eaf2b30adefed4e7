"""Our recipes against TRL 1.16, an independent implementation: the same numbers in, the same losses and gradients out.

Needs the extra `trl`. TRL's own trainers compute; only what they would ask a model or a reward function is put into
their mouth. Where TRL differs on purpose, a test says how.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf.advantages import Signals
from rlhf.backbones import load_backbone
from rlhf.divergences import k3
from rlhf.masked import last_token
from rlhf.ratios import token_ratio
from rlhf.recipes import RECIPES, Recipe
from rlhf.shaping import token_rewards
from rlhf.surrogates import Tokens, clipped, detached_weight, dual_clipped

trl = pytest.importorskip("trl", reason="needs the extra trl: pip install 'prefloop[trl]'")
datasets = pytest.importorskip("datasets")

PROMPTS, EACH, LENGTHS, LONGEST = 2, 4, (6, 1, 3, 5, 2, 6, 4, 4), 6
DOUBLE = torch.float64
EXACT = {"atol": 1e-12, "rtol": 1e-12}
SINGLE = {"atol": 1e-7, "rtol": 1e-7}  # TRL's n/(n − 1) is a float32
MASK = torch.arange(LONGEST)[None, :] < torch.tensor(LENGTHS)[:, None]
ONCE = torch.ones(len(LENGTHS), dtype=DOUBLE)
GROUP = torch.arange(PROMPTS).repeat_interleave(EACH)
CHANCE = torch.Generator().manual_seed(4)


def noise(scale: float) -> Tensor:
    return scale * torch.randn(len(LENGTHS), LONGEST, generator=CHANCE, dtype=DOUBLE)


OLD = -1.5 + noise(0.3)
NEW = OLD + noise(0.6)  # ratios from about 0.3 to 4: on both sides of every clip
REFERENCE = OLD + noise(0.3)
REWARDS = torch.tensor([1.0, 0.2, -0.5, 0.7, 2.0, 2.0, -1.0, 0.3], dtype=DOUBLE)


def trainer(folder: Path, kind: str = "GRPO", **options: Any) -> Any:
    """A trainer of TRL on the tiny model, in evaluation mode: nothing is divided by accumulation steps."""
    backbone = load_backbone("tiny")
    config = getattr(trl, f"{kind}Config")(
        output_dir=str(folder),
        num_generations=EACH,
        num_generations_eval=EACH,
        per_device_train_batch_size=PROMPTS * EACH,
        max_completion_length=LONGEST,
        beta=0.0,  # a reference model is not loaded: its log-probabilities are given
        report_to=[],
        use_cpu=True,
        bf16=False,
        **options,
    )
    made = getattr(trl, f"{kind}Trainer")(
        model=backbone.model,
        reward_funcs=lambda **_: [0.0] * len(LENGTHS),
        args=config,
        train_dataset=datasets.Dataset.from_dict({"prompt": ["a"] * len(LENGTHS)}),
        processing_class=backbone.tokenizer,
    )
    made.model.eval()
    return made


def their_loss(theirs: Any, advantages: Tensor, beta: float = 0.0) -> Callable[[Tensor], Tensor]:
    """TRL's loss as a function of the log-probabilities."""
    theirs.beta = beta
    ids = torch.ones(len(LENGTHS), LONGEST, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": MASK.long(),
        "advantages": advantages,
        "old_per_token_logps": OLD,
        "old_logps": (OLD * MASK).sum(1),
        "ref_per_token_logps": REFERENCE,
        "num_items_in_batch": MASK.sum(),
    }

    def loss(logp: Tensor) -> Tensor:
        theirs._get_per_token_logps_and_entropies = lambda *_, **__: (logp, torch.zeros_like(logp), None)
        return theirs._compute_loss(theirs.model, inputs)

    return loss


def our_loss(recipe: Recipe, advantages: Tensor, beta: float = 0.0) -> Callable[[Tensor], Tensor]:
    """The recipe's loss, of its own stages."""
    weights = recipe.aggregation(MASK, ONCE, LONGEST)

    def loss(logp: Tensor) -> Tensor:
        ratio = recipe.ratio(logp, OLD, MASK)
        objective = recipe.surrogate(Tokens(logp, ratio, advantages[:, None] * MASK, MASK)).objective
        penalty = recipe.loss_kl.estimator(logp, REFERENCE) if recipe.loss_kl else torch.zeros_like(logp)
        return (weights * (beta * penalty - objective)).sum()

    return loss


def with_gradient(loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    logp = NEW.clone().requires_grad_()
    value = loss(logp)
    value.backward()
    assert logp.grad is not None
    return value.detach(), logp.grad


def assert_agree(theirs: Callable[[Tensor], Tensor], ours: Callable[[Tensor], Tensor]) -> None:
    (their_value, their_gradient), (value, gradient) = with_gradient(theirs), with_gradient(ours)
    print(f"max |difference| {max((their_value - value).abs(), (their_gradient - gradient).abs().max()).item():.1e}")
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(their_value, value, **EXACT)
    torch.testing.assert_close(their_gradient, gradient, **EXACT)


def centred(rewards: Tensor = REWARDS) -> Tensor:
    return rewards - rewards.reshape(PROMPTS, EACH).mean(1).repeat_interleave(EACH)


def surrogate_of(name: str, surrogate: Any) -> Recipe:
    return replace(RECIPES[name], surrogate=surrogate)


@pytest.mark.parametrize(
    ("recipe", "beta", "options"),
    [
        # TRL multiplies the KL term by the ratio unless told otherwise; the paper's estimator is the plain k3.
        (RECIPES["grpo"], 0.4, {"loss_type": "grpo", "use_bias_correction_kl": False}),
        (RECIPES["dr_grpo"], 0.0, {"loss_type": "dr_grpo"}),
        (RECIPES["dapo"], 0.0, {"loss_type": "dapo", "epsilon": 0.2, "epsilon_high": 0.28}),
        # On a single process without accumulation a local token mean is the global one.
        (RECIPES["dapo"], 0.0, {"loss_type": "bnpo", "epsilon": 0.2, "epsilon_high": 0.28}),
        # TRL's bound is epsilon_high itself, ours and the paper's is 1 + ε.
        (RECIPES["cispo"], 0.0, {"loss_type": "cispo", "epsilon_high": 1.28}),
        (
            RECIPES["gspo"],
            0.0,
            {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
        ),
        (
            surrogate_of("gspo", partial(clipped, eps_low=0.2, eps_high=0.2)),  # wide enough to leave some unclipped
            0.0,
            {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.2},
        ),
        # Two-sided clipping: delta bounds ρ before the minimum, which is the dual clip at c = delta.
        (surrogate_of("dr_grpo", partial(dual_clipped, c=1.5)), 0.0, {"loss_type": "dr_grpo", "delta": 1.5}),
    ],
    ids=["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "gspo", "sequence_ratio", "two_sided_clip"],
)
def test_losses_and_gradients(tmp_path: Path, recipe: Recipe, beta: float, options: dict) -> None:
    theirs = trainer(tmp_path, **options)
    assert_agree(their_loss(theirs, centred(), beta), our_loss(recipe, centred(), beta))


def test_rloo(tmp_path: Path) -> None:
    # At 0.2 and at 1.0, because products of ratios leave a narrow clip quickly.
    for eps in (0.2, 1.0):
        recipe = surrogate_of("rloo", partial(clipped, eps_low=eps, eps_high=eps))
        theirs = trainer(tmp_path, "RLOO", epsilon=eps)
        assert_agree(their_loss(theirs, centred()), our_loss(recipe, centred()))


def test_where_trl_differs_on_purpose(tmp_path: Path) -> None:
    # Its default multiplies k3 by the differentiable ratio, so that its gradient is that of the reverse KL.
    grpo = RECIPES["grpo"]
    theirs = their_loss(trainer(tmp_path, loss_type="grpo"), centred(), 0.4)
    weights = grpo.aggregation(MASK, ONCE, LONGEST)

    def corrected(logp: Tensor) -> Tensor:
        penalty = token_ratio(logp, OLD, MASK) * k3(logp, REFERENCE)
        return our_loss(grpo, centred())(logp) + 0.4 * (weights * penalty).sum()

    assert_agree(theirs, corrected)
    # Its epsilon_high of CISPO is the bound itself: 0.28 would cut every weight to 0.28, which ours is at ε = −0.72.
    theirs = their_loss(trainer(tmp_path, loss_type="cispo", epsilon_high=0.28), centred())
    assert_agree(theirs, our_loss(surrogate_of("cispo", partial(detached_weight, eps_high=-0.72)), centred()))


def their_advantages(theirs: Any, rewards: Tensor, beta: float = 0.0) -> Tensor:
    """TRL's advantages of given rewards: it believes that it generated and scored."""
    ids = [[1] * length for length in LENGTHS]
    texts, prompts = ["a"] * len(LENGTHS), [[1]] * len(LENGTHS)
    short = (prompts, ids, texts)
    generated = short if isinstance(theirs, trl.RLOOTrainer) else (*short[:2], None, texts, None, {}, None, None)
    theirs.beta, theirs.ref_model = beta, object()
    theirs._generate = lambda *_: generated
    theirs._calculate_rewards = lambda *_: rewards[:, None]
    theirs._get_per_token_logps_and_entropies = lambda model, *_, **__: (
        REFERENCE if model is theirs.ref_model else OLD,
        torch.zeros_like(OLD),
        None,
    )
    return theirs._generate_and_score_completions([{"prompt": "a"}] * len(LENGTHS))["advantages"]


def our_advantages(recipe: Recipe, rewards: Tensor, beta: float = 0.0) -> Tensor:
    given = token_rewards(rewards[:, None] * last_token(MASK), OLD, REFERENCE, MASK, beta)
    found = recipe.advantage(Signals(given, MASK, GROUP, ONCE)).advantages
    return found[:, 0]


@pytest.mark.parametrize(
    ("name", "kind", "beta", "options"),
    [
        ("grpo", "GRPO", 0.0, {"scale_rewards": "group"}),
        ("dr_grpo", "GRPO", 0.0, {"scale_rewards": "none"}),
        ("rloo", "RLOO", 0.0, {}),
        ("rloo", "RLOO", 0.3, {}),  # the KL of the sampling policy inside the total
    ],
)
def test_advantages(tmp_path: Path, name: str, kind: str, beta: float, options: dict) -> None:
    theirs = their_advantages(trainer(tmp_path, kind, **options), REWARDS, beta)
    ours = our_advantages(RECIPES[name], REWARDS, beta)
    print(f"max |difference| {(theirs - ours).abs().max().item():.1e}")
    torch.testing.assert_close(theirs.to(DOUBLE), ours, **SINGLE)


def test_a_missing_reward(tmp_path: Path) -> None:
    # TRL leaves it out of the group's statistics and gives it advantage 0; we leave the response out.
    rewards = REWARDS.clone()
    rewards[2] = torch.nan
    theirs = their_advantages(trainer(tmp_path), rewards)
    kept = ~rewards.isnan()
    given = Signals(rewards[kept][:, None] * last_token(MASK[kept]), MASK[kept], GROUP[kept], ONCE[kept])
    ours = RECIPES["grpo"].advantage(given).advantages[:, 0]
    torch.testing.assert_close(theirs[kept].to(DOUBLE), ours, **SINGLE)
    assert theirs[2] == 0
