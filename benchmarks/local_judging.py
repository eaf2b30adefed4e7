"""How fast the judge in the process itself is, with questions together in a forward and one by one.

    python benchmarks/local_judging.py [SLATES]

SmolLM2-135M-Instruct on one thread judges so many pairs (16) by the rubric "concise", in both orders, once with one
question in each forward and once with as many as the token budget takes; canaries are left out. It prints the seconds,
questions and tokens a second of each, and how far their probabilities are apart at most.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from judges.batch import label_slates
from judges.canaries import CanaryRules
from judges.local_model import LocalJudge
from judges.rubric import load_rubric
from labeling.records import Annotator, Candidate, Message, Prompt, Slate
from labeling.store import Store
from rlhf.reply_probabilities import TOKEN_BUDGET, ReplyModel, open_reply_model
from shipped import DATA

MODEL = "smollm2-135m-instruct"


def slates(count: int) -> list[Slate]:
    made = []
    for n in range(count):
        words = (f"A first answer about {n}. " * (1 + n % 8), f"Another one about {n}, in other words. " * (1 + n % 5))
        made.append(Slate(Prompt((Message("user", f"What about {n}?"),)), tuple(Candidate(text) for text in words)))
    return made


def run(model: ReplyModel, count: int) -> list[float]:
    rubric = load_rubric("concise", DATA / "rubrics")
    who = Annotator("judge:bench", "judge")
    judge = LocalJudge(who, rubric, MODEL, "bench", lambda name: model, CanaryRules(each=0))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "project", create=True)
        store.add_slates(slates(count))
        started = time.monotonic()
        label_slates(judge, store.slates(), store)
        seconds = time.monotonic() - started
        spent = store.judge_spending(who.id)
        labels = sorted(store.labels(), key=lambda label: label.slate_id)
    rates = f"{spent.calls / seconds:.1f} questions/s, {spent.prompt_tokens / seconds:.0f} tokens/s"
    print(f"token budget {model.token_budget:5}: {seconds:.1f} s, {rates}", flush=True)
    return [label.probability or 0.0 for label in labels]


if __name__ == "__main__":
    torch.set_num_threads(1)
    backbone = open_reply_model(MODEL).backbone
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    alone, together = (run(ReplyModel(backbone, budget), count) for budget in (1, TOKEN_BUDGET))
    print(f"probabilities apart by at most {max(abs(a - b) for a, b in zip(alone, together, strict=True)):.1e}")
