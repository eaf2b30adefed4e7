"""TRL's RewardTrainer on the pairs of `human_comparisons.py`: trains, scores, writes scores and costs.

    python benchmarks/human_comparisons_trl.py FOLDER

FOLDER holds job.json, train.jsonl and test.jsonl (`prompt`, `chosen`, `rejected` as messages) and the model's
directory; scores.json is added. Needs trl (and so torch, transformers, datasets) and nothing of Prefloop, so that it
runs in an environment of its own. The train file is in the order of training, epoch after epoch.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import trl
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer


def run(folder: Path) -> dict[str, Any]:
    job = json.loads((folder / "job.json").read_text())
    train, test = (read_lines(folder / f"{part}.jsonl") for part in ("train", "test"))
    tokenizer = AutoTokenizer.from_pretrained(folder / "model", padding_side="right")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=1, dtype=torch.float32)
    torch.nn.init.zeros_(model.score.weight)  # as Prefloop's head begins; by default it begins at random
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            output_dir=str(folder / "trl"),
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            per_device_train_batch_size=job["pairs_per_step"],
            center_rewards_coefficient=job["centring"] or None,
            max_grad_norm=job["max_grad_norm"],
            seed=job["seed"],
            max_length=None,  # no pair is too long: they are cut before
            gradient_checkpointing=False,  # it saves memory for time; Prefloop's arm does not use it
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            logging_steps=10**9,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(train),
        processing_class=tokenizer,
        optimizers=optimizer(model, job),
    )
    started = clock()
    trainer.train()
    trained = clock()
    scores = score(trainer.model.eval(), tokenizer, test)
    return {
        "version": trl.__version__,
        "pairs": len(trainer.train_dataset),
        "tokens": sum(len(ids) for row in trainer.train_dataset for ids in (row["chosen_ids"], row["rejected_ids"])),
        "scores": scores,
        "training": since(started, trained),
        "scoring": since(trained, clock()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def optimizer(model: torch.nn.Module, job: dict[str, Any]) -> tuple[Any, Any]:
    """Prefloop's: AdamW, one learning rate for the decoder and one for the head, warm-up and linear decay."""
    head = list(model.score.parameters())
    decoder = [p for name, p in model.named_parameters() if not name.startswith("score.")]
    adam = torch.optim.AdamW(
        [{"params": decoder, "lr": job["learning_rate"]}, {"params": head, "lr": job["head_learning_rate"]}],
        weight_decay=job["weight_decay"],
    )
    factors = job["schedule"]
    return adam, torch.optim.lr_scheduler.LambdaLR(adam, lambda step: factors[min(step, len(factors) - 1)])


@torch.no_grad()
def score(model: torch.nn.Module, tokenizer: Any, pairs: list[dict[str, Any]]) -> list[list[float]]:
    """[chosen, rejected] of each pair, in order; the two sequences of a pair make a batch, so little is padded."""
    scores = []
    for pair in pairs:
        dialogues = [pair["prompt"] + pair[side] for side in ("chosen", "rejected")]
        batch = tokenizer.apply_chat_template(dialogues, padding=True, return_tensors="pt", return_dict=True)
        scores.append(model(**batch).logits[:, 0].tolist())
    return scores


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float], end: tuple[float, float]) -> dict[str, float]:
    return {"seconds": end[0] - start[0], "cpu_seconds": end[1] - start[1]}


if __name__ == "__main__":
    disable_progress_bars()
    place = Path(sys.argv[1])
    (place / "scores.json").write_text(json.dumps(run(place)))
