"""How fast the judge in the process itself is, with what all its questions begin with computed once or for each.

    python benchmarks/local_judging.py [SLATES [ROUNDS]]

SmolLM2-135M-Instruct on one thread judges so many pairs (8) by the rubric "concise", in both orders, so many times (3):
in turn with each question by itself, with the common beginning computed once and one question in each forward, and with
as many as the token budget takes; canaries are left out. It prints the seconds of CPU time of each, which other work on
the machine hardly changes, the median of the ratios of one round, and how far the probabilities are apart at most.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

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


class OneByOne(ReplyModel):
    """Shares nothing between questions."""

    def logprobs(
        self, questions: Sequence[tuple[int, ...]], replies: Sequence[str]
    ) -> Iterator[Mapping[int, list[float]]]:
        for i, question in enumerate(questions):
            for found in super().logprobs([question], replies):
                yield {i: found[0]}


def slates(count: int) -> list[Slate]:
    made = []
    for n in range(count):
        words = (f"A first answer about {n}. " * (1 + n % 8), f"Another one about {n}, in other words. " * (1 + n % 5))
        made.append(Slate(Prompt((Message("user", f"What about {n}?"),)), tuple(Candidate(text) for text in words)))
    return made


def run(name: str, model: ReplyModel, count: int) -> tuple[float, list[float]]:
    """The seconds of CPU time that it takes, and the probabilities of the labels."""
    rubric = load_rubric("concise", DATA / "rubrics")
    who = Annotator("judge:bench", "judge")
    judge = LocalJudge(who, rubric, MODEL, "bench", lambda name: model, CanaryRules(each=0))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "project", create=True)
        store.add_slates(slates(count))
        started = time.process_time()
        label_slates(judge, store.slates(), store)
        seconds = time.process_time() - started
        calls = store.judge_calls(who.id).values()
        labels = sorted(store.labels(), key=lambda label: label.slate_id)
    tokens = sum(call.prompt_tokens for call in calls)
    rates = f"{len(calls) / seconds:.2f} questions/s, {tokens / seconds:.0f} tokens/s"
    print(f"{name:20}: {seconds:.1f} s, {rates}", flush=True)
    return seconds, [label.probability or 0.0 for label in labels]


if __name__ == "__main__":
    torch.set_num_threads(1)
    backbone = open_reply_model(MODEL).backbone
    count, rounds = (int(sys.argv[n]) if len(sys.argv) > n else default for n, default in ((1, 8), (2, 3)))
    arms = {
        "each by itself": OneByOne(backbone),
        "shared, one by one": ReplyModel(backbone, 1),
        "shared, together": ReplyModel(backbone, TOKEN_BUDGET),
    }
    found = [{name: run(name, model, count) for name, model in arms.items()} for _ in range(rounds)]
    for name in list(arms)[1:]:
        ratios = [one["each by itself"][0] / one[name][0] for one in found]
        apart = max(abs(a - b) for one in found for a, b in zip(one["each by itself"][1], one[name][1], strict=True))
        spread = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{name}: {median(ratios):.2f} times as fast ({spread}), probabilities apart by at most {apart:.1e}")
