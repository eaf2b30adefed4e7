"""What stands for vLLM's offline runner: `python offline_runner.py run-batch -i IN.jsonl -o OUT.jsonl --model M`.

It takes and writes the lines that vLLM documents ("Offline Inference with the OpenAI Batch file format"), with its
models of the same names: all fields of a reply, and those of a request that judges use. It likes answers about doors.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field


class ChatMessage(BaseModel, extra="forbid", strict=True):
    role: Literal["system", "user", "assistant"]
    content: str


class JsonSchema(BaseModel, extra="forbid", strict=True):
    name: str
    strict: bool
    json_schema: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel, extra="forbid", strict=True):
    type: Literal["json_schema"]
    json_schema: JsonSchema


class ChatCompletionRequest(BaseModel, extra="forbid", strict=True):
    model: str
    messages: list[ChatMessage]
    temperature: float
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0  # its own default for max_logprobs
    n: int = 1
    seed: int | None = None
    response_format: ResponseFormat | None = None


class BatchRequestInput(BaseModel, extra="forbid", strict=True):
    custom_id: str
    method: Literal["POST"]
    url: Literal["/v1/chat/completions"]
    body: ChatCompletionRequest


class BatchResponseData(BaseModel):
    status_code: int = 200
    request_id: str = "vllm-batch-8d5f0c"
    body: dict[str, Any] | None = None


class BatchRequestOutput(BaseModel):
    id: str = "vllm-e5a0b1"
    custom_id: str
    response: BatchResponseData | None
    error: Any | None = None


def prefers_doors(shown: str) -> str:
    return "[[B]]" if "door" in shown.partition("<answer_B>")[2] else "[[A]]"


def reply_to(request: BatchRequestInput, model: Callable[[str], str] = prefers_doors) -> BatchRequestOutput:
    text = model(request.body.messages[-1].content)
    message = {"role": "assistant", "content": text, "refusal": None, "annotations": None, "audio": None}
    message |= {"function_call": None, "tool_calls": [], "reasoning": None, "reasoning_content": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    usage = {"prompt_tokens": 100, "total_tokens": 104, "completion_tokens": 4, "prompt_tokens_details": None}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request.body.model}
    body |= {"choices": [choice | {"token_ids": None}], "service_tier": None, "system_fingerprint": None}
    body |= {"usage": usage, "prompt_logprobs": None, "prompt_token_ids": None, "kv_transfer_params": None}
    return BatchRequestOutput(custom_id=request.custom_id, response=BatchResponseData(body=body))


def refusal_of(request: BatchRequestInput, error: Any) -> BatchRequestOutput:
    """It says why a request failed as text or in an object, beside a response without a body."""
    return BatchRequestOutput(custom_id=request.custom_id, response=BatchResponseData(status_code=400), error=error)


def read_requests(path: Path) -> list[BatchRequestInput]:
    return [BatchRequestInput.model_validate_json(line) for line in path.read_text("utf-8").splitlines()]


def lines_of(replies: list[BatchRequestOutput]) -> str:
    return "".join(reply.model_dump_json() + "\n" for reply in replies)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["run-batch"])
    parser.add_argument("-i", type=Path, required=True)
    parser.add_argument("-o", type=Path, required=True)
    parser.add_argument("--model", required=True)
    asked = parser.parse_args()
    requests = read_requests(asked.i)
    assert {request.body.model for request in requests} == {asked.model}  # others it would refuse
    asked.o.write_text(lines_of([reply_to(request) for request in requests]), "utf-8")
