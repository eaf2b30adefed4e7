"""`python judging_nursery.py PROJECT JUDGE.toml`: forks a judging process for each line on stdin, and prints its id.

Each child is a process like any other, which can be killed anywhere; only what it imports is there already. When it is
gone, the next line is read.
"""

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import openai.resources.chat.completions  # noqa: F401

from judges.batch import label_slates
from judges.config import load_judge
from labeling.store import Store

project, judge_file = sys.argv[1:]
asyncio.run(asyncio.sleep(0))


def judge_all() -> None:
    store = Store(project)
    label_slates(load_judge(Path(judge_file), Path(__file__).parents[2] / "data"), store.slates(), store)


for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        status = 1
        try:
            judge_all()
            status = 0
        finally:
            os._exit(status)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
