"""vLLM's own reader and writer of batch files around a fixed reply: `python vllm_lines.py IN.jsonl OUT.jsonl`.

It runs by a Python that has vLLM; no model, no GPU. Every line is read as `vllm run-batch` reads it, must hold nothing
that vLLM would ignore, is turned into the settings of a generation, and is answered by vLLM's own models.
"""

import asyncio
import json
import sys
from importlib.metadata import version
from pathlib import Path

from vllm.entrypoints.launchers.run_batch import BatchRequestInput, run_request
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatMessage,
)
from vllm.entrypoints.serve.engine.protocol import UsageInfo
from xgrammar import Grammar
from xgrammar.testing import _is_grammar_accept_string as is_accepted


async def reply(request: ChatCompletionRequest) -> ChatCompletionResponse:
    """The verdict that stands first in the form that was asked for."""
    assert not request.model_extra, f"vLLM would ignore {request.model_extra}"
    settings = request.to_sampling_params(request.max_tokens or request.max_completion_tokens, {})
    assert settings.n == request.n
    assert settings.max_tokens == 12
    words = request.messages[-1]["content"]
    verdict = "A>B=C" if "answer_C" in words else "A"
    text = json.dumps({"verdict": verdict}) if "as JSON" in words else f"[[{verdict}]]"
    if settings.structured_outputs:
        grammar = Grammar.from_json_schema(json.dumps(settings.structured_outputs.json))
        assert is_accepted(grammar, text)
        assert not is_accepted(grammar, '{"verdict": "A and B"}')
    choices = [
        ChatCompletionResponseChoice(index=n, message=ChatMessage(role="assistant", content=text))
        for n in range(settings.n)
    ]
    usage = UsageInfo(prompt_tokens=100, completion_tokens=4 * settings.n, total_tokens=100 + 4 * settings.n)
    return ChatCompletionResponse(model=request.model, choices=choices, usage=usage)


async def main() -> None:
    lines = Path(sys.argv[1]).read_text("utf-8").splitlines()
    requests = [BatchRequestInput.model_validate_json(line) for line in lines]
    replies = [await run_request(reply, request) for request in requests]
    failed = [output.error for output in replies if output.error]
    assert not failed, failed[0]
    Path(sys.argv[2]).write_text("".join(output.model_dump_json() + "\n" for output in replies), "utf-8")
    print(f"vLLM {version('vllm')} took {len(requests)} requests and wrote {len(replies)} replies")


asyncio.run(main())
