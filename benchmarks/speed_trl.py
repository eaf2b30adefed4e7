"""TRL's side of `speed.py`: the same job by RewardTrainer, GRPOTrainer or PPOTrainer.

    python benchmarks/speed_trl.py JOB.json OUT.json

Needs trl (and so torch, transformers, datasets) and nothing of Prefloop, so that it runs in an environment of its own.
Everything that the job does not say is as TRL has it by default (gradient checkpointing, for one).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import transformers
import trl
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

Job = dict[str, Any]
PLAIN: dict[str, Any] = {
    "bf16": False,
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "lr_scheduler_type": "constant",
}


class Clock(TrainerCallback):
    """When training began, and when each optimiser step was over."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.times.append((time.perf_counter(), time.process_time()))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append((time.perf_counter(), time.process_time()))


def run(job: Job, folder: str) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    clock = Clock()
    trainer = {"reward": reward_trainer, "grpo": grpo_trainer, "ppo": ppo_trainer}[job["kind"]](job, folder)
    trainer.add_callback(clock)
    trainer.train()
    steps = list(pairwise(clock.times))
    return {
        "seconds": [b[0] - a[0] for a, b in steps],
        "cpu_seconds": [b[1] - a[1] for a, b in steps],
        "losses": [row["loss"] for row in trainer.state.log_history if "loss" in row],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {m.__name__: m.__version__ for m in (trl, torch, transformers)},
    }


def checkpointing(job: Job) -> dict[str, bool]:
    return {} if job["checkpointing"] else {"gradient_checkpointing": False}


def scorer(job: Job) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(job["model"], num_labels=1, dtype=torch.float32)
    torch.nn.init.zeros_(model.score.weight)  # as Prefloop's head begins
    return model


def reward_trainer(job: Job, folder: str) -> Any:
    """The pairs of a slate make a batch, and a step."""
    model = scorer(job)
    head = list(model.score.parameters())
    decoder = [p for name, p in model.named_parameters() if not name.startswith("score.")]
    adam = torch.optim.AdamW(
        [{"params": decoder, "lr": job["learning_rate"]}, {"params": head, "lr": job["head_learning_rate"]}],
        weight_decay=0.0,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: job["factors"][min(step, len(job["factors"]) - 1)])
    rows = []
    for n in job["order"]:
        slate = job["slates"][n]
        k = len(slate["candidates"])
        whole = [slate["prompt"] + c for c in slate["candidates"]]
        rows += [{"chosen_ids": whole[i], "rejected_ids": whole[j]} for i in range(k) for j in range(i + 1, k)]
    return trl.RewardTrainer(
        model=model,
        args=trl.RewardConfig(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=len(rows) // len(job["slates"]),
            train_sampling_strategy="sequential",
            max_length=None,
            logging_steps=1,
            **checkpointing(job),
            **PLAIN,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(job["model"], padding_side="right"),
        optimizers=(adam, schedule),
    )


def grpo_trainer(job: Job, folder: str) -> Any:
    prompts, each = job["prompts"], job["responses"]

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths = {len(ids) for ids in completion_ids}
        assert lengths == {job["new_tokens"]}, f"lengths {lengths}: nothing may end a response here"
        return [sum(ids) % 97 / 97 for ids in completion_ids]

    peft_config = None
    if job["lora"]:
        from peft import LoraConfig

        peft_config = LoraConfig(r=job["lora"], lora_alpha=2 * job["lora"], target_modules="all-linear")
    trainer = trl.GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32),
        reward_funcs=reward,
        args=trl.GRPOConfig(
            output_dir=folder,
            max_steps=job["steps"],
            per_device_train_batch_size=each,
            gradient_accumulation_steps=len(prompts),
            num_generations=each,
            max_completion_length=job["new_tokens"],
            beta=job["beta"],
            temperature=1.0,
            learning_rate=job["learning_rate"],
            generation_kwargs={"eos_token_id": job["end"]},
            logging_steps=1,
            **checkpointing(job),
            **PLAIN,
        ),
        train_dataset=Dataset.from_list([{"prompt": str(n)} for n in range(len(prompts))]),
        processing_class=AutoTokenizer.from_pretrained(job["model"], padding_side="left"),
        peft_config=peft_config,
    )
    trainer.eos_token_ids = [job["end"]]
    trainer._tokenize_prompts = lambda names: ([list(prompts[int(n)]) for n in names], None, {})
    return trainer


def ppo_trainer(job: Job, folder: str) -> Any:
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    rows = [{"input_ids": p} for p in job["prompts"] for _ in range(job["responses"])]
    policy, reference = (AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32) for _ in range(2))
    policy.generation_config.eos_token_id = job["end"]
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    return PPOTrainer(
        args=PPOConfig(
            output_dir=folder,
            total_episodes=len(rows) * job["steps"],
            per_device_train_batch_size=len(rows) // 4,
            gradient_accumulation_steps=4,
            num_mini_batches=1,
            num_ppo_epochs=1,
            response_length=job["new_tokens"],
            temperature=1.0,
            learning_rate=job["learning_rate"],
            num_sample_generations=0,
            **checkpointing(job),
            **PLAIN,
        ),
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=scorer(job),
        value_model=scorer(job),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
    )


if __name__ == "__main__":
    disable_progress_bars()
    job_file, out_file = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as work:
        out_file.write_text(json.dumps(run(json.loads(job_file.read_text()), work)))
