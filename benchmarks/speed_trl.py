"""TRL's side of `speed.py`: the same job by its RewardTrainer.

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

import torch
import transformers
import trl
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

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
    trainer = reward_trainer(job, folder)
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


if __name__ == "__main__":
    disable_progress_bars()
    job_file, out_file = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as work:
        out_file.write_text(json.dumps(run(json.loads(job_file.read_text()), work)))
