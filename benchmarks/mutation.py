"""Does a test notice? Signs, bounds, masks and normalisers of the arithmetic, broken one at a time.

    python benchmarks/mutation.py [FILE ...]

Each mutant is one text of one file replaced by another, in a copy of the tree. The tests that concern the file then run
there: a failing test kills the mutant, and one that survives is a test that is missing. With FILEs only theirs run.
Prints a line for each mutant and the share killed, and exits with an error if one survived.

The big libraries are imported once, and each mutant's tests run in a fork of this process, one at a time.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch loads; a fork must not inherit threads

import pytest
import torch
from mutants import MUTANTS
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401 (for the forks)

ROOT = Path(__file__).resolve().parents[1]
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "results", "pictures", "*.egg-info", "build", "dist")
TIMEOUT = 300  # seconds; one that hangs the tests is noticed, too
UPDATE = ("test_policy_update", "test_update_terms", "test_every_recipe", "test_noted_forward")
# The test modules of tests/rlhf that concern a file of rlhf, quick ones first.
TESTS = {
    "masked": ("test_masked",),
    "divergences": ("test_divergences",),
    "advantages": ("test_advantages", "test_recipes"),
    "ratios": ("test_ratios_and_aggregation",),
    "aggregation": ("test_ratios_and_aggregation",),
    "surrogates": ("test_surrogates", "test_recipes"),
    "filters": ("test_filters", "test_recipes"),
    "shaping": ("test_shaping", "test_recipes"),
    "auxiliary": ("test_auxiliary", "test_recipes"),
    "rewards": ("test_rewards",),
    "scoring": ("test_rewards",),
    "majority": ("test_majority",),
    "step_splitting": ("test_step_splitting",),
    "policy_samples": ("test_policy_samples",),
    "logprobs": ("test_logprobs", "test_noted_forward"),
    "noted_forward": ("test_noted_forward",),
    "loop_steps": ("test_loop_steps", "test_noted_forward"),
    "adapters": ("test_adapters",),
    "linear_layers": ("test_joined_layers", "test_noted_forward", "test_sampling"),
    "sampling": ("test_joined_layers", "test_sampling", "test_noted_forward"),
    "shared_prompts": ("test_sampling",),
    "bradley_terry": ("test_bradley_terry",),
    "recipes": ("test_recipes",),
    "recipe_options": ("test_run_config", "test_rewards", "test_recipes"),
    "packing": ("test_packing", "test_logprobs"),
    "reward_model": ("test_packing",),
    "language_subject": ("test_update_figures", "test_noted_forward"),
    "targets": ("test_targets", *UPDATE),
    "rollout": ("test_rewards", "test_policy_samples", *UPDATE),
    "optimiser_step": ("test_gradients", "test_targets", *UPDATE),
    "policy_update": UPDATE,
    "resting_adamw": ("test_resting_adamw", "test_policy_update"),
    "resting": ("test_resting", "test_resting_adamw"),
    "nameless_file": ("test_nameless_file", "test_noted_forward"),
    "gradients": ("test_gradients",),
    "reward_training": ("test_reward_training", "test_gradients"),
}


@dataclass(frozen=True)
class Mutant:
    """In rlhf/{name}.py, `old` becomes `new`."""

    name: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        return Path("rlhf") / f"{self.name}.py"

    def __str__(self) -> str:
        return f"{self.name}: {' '.join(self.old.split())}  →  {' '.join(self.new.split())}"


def main(names: list[str]) -> int:
    mutants = [Mutant(*parts) for parts in MUTANTS]
    check(mutants)
    torch.testing.assert_close(torch.ones(1), torch.ones(1))  # it, too, imports much when first used
    chosen = [m for m in mutants if not names or m.name in names]
    survivors = []
    begin = time.monotonic()
    for n, mutant in enumerate(chosen, 1):
        verdict = judge(mutant)
        if verdict == "SURVIVED":
            survivors.append(mutant)
        print(f"{n:3}/{len(chosen)} {verdict:8} {mutant}", flush=True)
    killed = len(chosen) - len(survivors)
    minutes = (time.monotonic() - begin) / 60
    print(f"{killed} of {len(chosen)} mutants killed ({killed / len(chosen):.0%}) in {minutes:.0f} minutes")
    return len(survivors)


def check(mutants: list[Mutant]) -> None:
    """Stop at a mutant that does not match exactly once, or that was already there."""
    for n, mutant in enumerate(mutants):
        if mutant.name not in TESTS:
            sys.exit(f"no tests are named for {mutant.path}")
        found = (ROOT / mutant.path).read_text(encoding="utf-8").count(mutant.old)
        if found != 1:
            sys.exit(f"{mutant.path} holds this text {found} times, not once: {mutant.old!r}")
        if mutant.old == mutant.new or mutant in mutants[:n]:
            sys.exit(f"this mutant changes nothing, or is there twice: {mutant}")


def judge(mutant: Mutant) -> str:
    """Run the tests on a copy of the tree with the mutant in it."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=NOT_COPIED)
        target = tree / mutant.path
        target.write_text(target.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        child = multiprocessing.get_context("fork").Process(target=run_tests, args=(tree, mutant))
        child.start()
        child.join(TIMEOUT)
        if child.exitcode is None:
            child.kill()
            child.join()
            return "killed"
        if child.exitcode not in (0, 1):  # 1: tests failed
            sys.exit(f"the tests of {mutant} did not run (pytest ended with {child.exitcode})")
        return "killed" if child.exitcode else "SURVIVED"


def run_tests(tree: Path, mutant: Mutant) -> None:
    """In the fork: pytest on the copy, whose modules nobody has imported yet."""
    os.chdir(tree)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(tree))
    tests = [f"tests/rlhf/{module}.py" for module in TESTS[mutant.name]]
    with contextlib.redirect_stdout(io.StringIO()):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", f"--rootdir={tree}", "-c", "pyproject.toml", *tests])
    os._exit(int(code))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
