"""The questions of benchmarks/judging.py asked by distilabel: `python judging_distilabel.py URL QUESTIONS.jsonl BATCH`.

It runs in an environment of its own, with `distilabel[openai]` and `requests`. A line of QUESTIONS is
`{"messages": […]}`; BATCH is the step's input_batch_size, all of which it asks at once. It prints the seconds from
`Pipeline.run` to its end, those until the pipeline was ready to ask, and how many questions got no reply.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from distilabel.models.llms.openai import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import ChatGeneration


def main(url: str, questions: Path, batch: int) -> None:
    data = [json.loads(line) for line in questions.read_text().splitlines()]
    with Pipeline(name="judging") as pipeline:
        load = LoadDataFromDicts(data=data, batch_size=batch)
        llm = OpenAILLM(
            model="fake",
            base_url=url,
            api_key="none",
            timeout=60,
            generation_kwargs={"temperature": 0.0, "max_new_tokens": 64},
        )
        ask = ChatGeneration(llm=llm, input_batch_size=batch)
        load >> ask
    started = time.monotonic()
    made = pipeline.run(use_cache=False)
    seconds = time.monotonic() - started
    rows = made["default"]["train"]["generation"]
    print(json.dumps({"seconds": seconds, "lost": len(data) - sum(text is not None for text in rows)}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
