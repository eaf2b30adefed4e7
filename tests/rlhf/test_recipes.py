"""The recipes as the papers give them: each stage and each constant, written down a second time."""

from typing import Any

import pytest

from rlhf.recipe_options import constants
from rlhf.recipes import RECIPES, STAGES, stage_function

GROUP = {"advantage": "group_standardized", "ratio": "token_ratio", "surrogate": "clipped", "aggregation": "token_mean"}
GRPO = GROUP | {"aggregation": "sequence_mean", "loss_kl": ("k3", 0.04)}
PPO = GROUP | {"advantage": "gae", "reward_kl": (0.05, 6.0), "critic": True}
PAPER: dict[str, dict[str, Any]] = {
    "ppo": PPO | {"gamma": 1.0, "lam": 0.95, "whiten": True, "value_clip": 0.2},
    "ppo_ptx": PPO | {"ptx": 0.5},
    "ppo_dual_clip": PPO | {"surrogate": "dual_clipped", "c": 3.0},
    "reinforce_pp": GROUP | {"advantage": "batch_standardized", "reward_kl": (0.01, None), "gamma": 1.0},
    "reinforce_pp_baseline": GROUP | {"advantage": "group_baseline_standardized", "loss_kl": ("k2", 0.01)},
    "remax": GROUP
    | {"advantage": "greedy_baseline", "surrogate": "reinforce", "aggregation": "sequence_sum"}
    | {"reward_kl": (0.01, None), "epochs": 1, "minibatches": 1},
    "rloo": GROUP
    | {"advantage": "leave_one_out", "ratio": "product_ratio", "aggregation": "sequence_mean"}
    | {"reward_kl": (0.05, None)},
    "grpo": GRPO | {"eps": 1e-4},
    "grpo_process": GRPO | {"advantage": "process_standardized", "reward": "step_rewards", "eps": 1e-4},
    "dr_grpo": GROUP | {"advantage": "group_centered", "aggregation": "fixed_length"},
    "dapo": GROUP
    | {"samples": "mixed_outcome_groups", "score": "overlong_penalised", "eps_high": 0.28, "cache": 0.2, "attempts": 4},
    "vapo": GROUP
    | {"advantage": "length_adaptive_gae", "eps_high": 0.28, "critic": True, "alpha": 0.05, "critic_lam": 1.0}
    | {"whiten": True, "gamma": 1.0}
    | {"mu": 0.1, "pretraining_passes": 8},
    "gspo": GROUP | {"ratio": "sequence_ratio", "aggregation": "sequence_mean", "eps_low": 3e-4, "eps_high": 4e-4},
    "cispo": GROUP | {"surrogate": "detached_weight", "eps_low": 1.0, "eps_high": 0.28},
    "aspo": GROUP | {"surrogate": "flipped", "cap": 3.0},
    "clip_cov": GROUP | {"surrogate": "covariance_masked", "share": 2e-4, "low": 1.0, "high": 5.0},
    "pf_ppo": PPO | {"samples": "best_worst"},
    "aepo": GROUP | {"high_temperature": 1.2, "low_temperature": 0.8, "tempered_alpha": 0.1},
    "ttrl": GRPO | {"reward": "majority_vote"},
}
USUAL = {"reward": "outcome", "score": "as_scored", "samples": "all_samples", "eps_low": 0.2, "eps_high": 0.2}


@pytest.mark.parametrize("name", RECIPES)
def test_stages_and_constants(name: str) -> None:
    recipe, found = RECIPES[name], constants(RECIPES[name])
    expected = USUAL | PAPER[name]
    kl = recipe.loss_kl
    parts: dict[str, Any] = {kind: stage_function(getattr(recipe, kind)).__name__ for kind in STAGES}
    parts["loss_kl"] = (kl.estimator.__name__, kl.beta) if kl else None
    parts["reward_kl"] = (recipe.reward_kl.beta, recipe.reward_kl.target) if recipe.reward_kl else None
    parts["critic"] = recipe.critic is not None
    for key in (*STAGES, "loss_kl", "reward_kl", "critic"):
        assert parts[key] == expected.get(key, False if key == "critic" else None), key
    for key, value in expected.items():
        if key in found:
            assert found[key] == value, key
    present = {key for key in ("positive", "pretraining", "tempered") if getattr(recipe, key) is not None}
    assert present == {"vapo": {"positive"}, "ppo_ptx": {"pretraining"}, "aepo": {"tempered"}}.get(name, set())


def test_every_recipe_is_written_down() -> None:
    assert set(PAPER) == set(RECIPES)
