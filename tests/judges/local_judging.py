"""`python local_judging.py PROJECT`: the tiny model labels what waits, question by question, and can be killed."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from judges.batch import label_slates
from judges.canaries import CanaryRules
from judges.local_model import LocalJudge, ReplyModel
from judges.rubric import Rubric
from labeling.records import Annotator
from labeling.store import Store
from rlhf.backbones import load_backbone
from rlhf.reply_probabilities import ReplyModel as TransformersReplies

RUBRIC = Rubric("test", "The better answer is true and short.")


def tiny_replies(token_budget: int = 8192) -> TransformersReplies:
    """The random byte-level model, with room for a judge's questions."""
    return TransformersReplies(replace(load_backbone("tiny"), context=8192), token_budget)


def local_judge(
    open_model: Callable[[str], ReplyModel] = lambda name: tiny_replies(), rubric: Rubric = RUBRIC
) -> LocalJudge:
    annotator = Annotator("judge:t:tiny:0", "judge")
    return LocalJudge(annotator, rubric, "tiny", "judge.toml", open_model, CanaryRules(each=0))


class Slow(TransformersReplies):
    """Takes its time between one forward and the next."""

    def logprobs(
        self, questions: Sequence[tuple[int, ...]], replies: Sequence[str]
    ) -> Iterator[Mapping[int, list[float]]]:
        for found in super().logprobs(questions, replies):
            yield found
            time.sleep(0.1)


if __name__ == "__main__":
    store = Store(sys.argv[1])
    slow = Slow(tiny_replies().backbone, token_budget=1)
    label_slates(local_judge(lambda name: slow), store.slates(), store)
