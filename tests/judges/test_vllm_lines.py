"""Files of questions through vLLM's own code and back: `VLLM_PYTHON=PYTHON_WITH_VLLM pytest -m long` runs it."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import HERE, slate

from judges.batch import label_slates
from judges.batch_files import BatchFiles
from judges.config import load_judge
from judges.endpoint_judge import EndpointJudge
from labeling.store import Store

DATA = Path(__file__).parents[2] / "data"
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"schema": True, "logprobs": False},
    {"schema": True, "samples": 3, "temperature": 0.7, "n": True, "token_limit": "max_completion_tokens"},
)


@pytest.mark.long
@pytest.mark.parametrize("settings", SETTINGS)
def test_vllm_reads_what_is_written_and_its_replies_are_read(
    settings: dict[str, Any], judge_file: Callable[..., Path], tmp_path: Path, store: Store
) -> None:
    """Pairs, and rankings of three; the same verdict by place each time, so all are ties."""
    python = os.environ.get("VLLM_PYTHON")
    if python is None:
        pytest.skip("VLLM_PYTHON names no Python that has vLLM")
    store.add_slates([slate(f"Name {n}.", "One.", "Two.", "Three.") for n in range(2)])
    judge = load_judge(judge_file("http://127.0.0.1:9/v1", **settings), DATA)
    assert isinstance(judge, EndpointJudge)
    judge = replace(judge, batch=BatchFiles(tmp_path, judge.endpoint.model))
    assert "is awaited" in label_slates(judge, store.slates(), store).stopped
    (questions,) = tmp_path.glob("submission_*.jsonl")
    replies = questions.with_suffix(".replies.jsonl")
    command = [python, str(HERE / "vllm_lines.py"), str(questions), str(replies)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout.splitlines()[-1])
    assert "took 18 requests and wrote 18 replies" in done.stdout  # 6 · 2 + 2 · 3
    assert label_slates(judge, store.slates(), store).outcomes == {"tie": 8}
