"""Every answer, event and error parses under the openai SDK's types in strict mode: nothing missing, nothing more."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pydantic
import pytest
from openai.types import Batch, Completion, CreateEmbeddingResponse, FileDeleted, FileObject, Model, Upload
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.shared import ErrorObject

from tests.e2e.conftest import Running

BASE = "SmolLM2-135M-Instruct"
HI = [{"role": "user", "content": "Hi, naïve café 日本 🙂!"}]
TOOL = {
    "name": "get_time",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Paris"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
FORCED = {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required", "parallel_tool_calls": False}
CHAT: dict[str, Any] = {"model": BASE, "messages": HI, "max_tokens": 6}
TEXT: dict[str, Any] = {"model": BASE, "prompt": "Hi", "max_tokens": 4}
RESPONSE: dict[str, Any] = {"model": BASE, "input": "Hi", "max_output_tokens": 6}
OPENAIS_OWN = {"store", "name"}  # of responses and of calls that are done: in OpenAI's document, not in the SDK's types
OURS = {"chat_template", "graders", "keep", "replay_share", "weights"}  # of methods, beyond OpenAI's
LISTS = {"/v1/models": Model, "/v1/files": FileObject, "/v1/batches": Batch, "/v1/fine_tuning/jobs": FineTuningJob}


def strict(kind: Any, content: str) -> Any:
    """The content as the SDK's type, nothing converted on the way."""
    value = pydantic.TypeAdapter(kind).validate_json(content, strict=True)
    assert {path.rsplit(".", 1)[1] for path in unknown(value)} <= OPENAIS_OWN | OURS, content
    return value


def unknown(value: Any, path: str = "") -> Iterator[str]:
    """Fields that the SDK's types do not have."""
    if isinstance(value, pydantic.BaseModel):
        yield from (f"{path}.{name}" for name in value.model_extra or ())
        for name in type(value).model_fields:
            yield from unknown(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for entry in value:  # pyright: ignore[reportUnknownVariableType]
            yield from unknown(entry, path)


@pytest.fixture
def http(running: Running) -> Iterator[httpx.Client]:
    with running.http() as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/v1/chat/completions", CHAT, ChatCompletion),
        ("/v1/chat/completions", {**CHAT, "n": 2, "logprobs": True, "top_logprobs": 2}, ChatCompletion),
        ("/v1/chat/completions", {**CHAT, **FORCED, "max_tokens": 60}, ChatCompletion),
        ("/v1/completions", TEXT, Completion),
        ("/v1/completions", {**TEXT, "logprobs": 2, "n": 2}, Completion),
        ("/v1/responses", RESPONSE, Response),
        ("/v1/responses", {**RESPONSE, "include": ["message.output_text.logprobs"], "top_logprobs": 2}, Response),
        ("/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": ["Hi", "Ho"]}, CreateEmbeddingResponse),
    ],
)
def test_answers(path: str, body: dict[str, Any], kind: Any, http: httpx.Client) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    strict(kind, answer.text)


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/v1/chat/completions", {**CHAT, "n": 2, "logprobs": True, "top_logprobs": 2}, ChatCompletionChunk),
        ("/v1/chat/completions", {**CHAT, **FORCED, "max_tokens": 60}, ChatCompletionChunk),
        ("/v1/completions", {**TEXT, "logprobs": 2}, Completion),
        ("/v1/responses", RESPONSE, ResponseStreamEvent),
        ("/v1/responses", {**RESPONSE, "tools": [{"type": "function", **TOOL}], "tool_choice": "required",
                           "parallel_tool_calls": False, "max_output_tokens": 60}, ResponseStreamEvent),
    ],
)  # fmt: skip
def test_events(path: str, body: dict[str, Any], kind: Any, http: httpx.Client) -> None:
    options = {} if path == "/v1/responses" else {"stream_options": {"include_usage": True}}
    lines = http.post(path, json={**body, "stream": True, **options}).text.splitlines()
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    assert len(events) > 3
    for event in events:
        # Of completions the SDK has one type for answers and chunks; in OpenAI's chunks the reason is null, as here.
        strict(kind, event.replace('"finish_reason": null', '"finish_reason": "stop"') if kind is Completion else event)


def test_what_is_kept(http: httpx.Client, job: FineTuningJob) -> None:
    kept = http.post("/v1/responses", json=RESPONSE).json()["id"]
    strict(Response, http.get(f"/v1/responses/{kept}").text)
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
    file = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("b.jsonl", json.dumps(line).encode())})
    file_id = strict(FileObject, file.text).id
    window = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    strict(Batch, http.post("/v1/batches", json={"input_file_id": file_id, **window}).text)
    upload = {"filename": "x.jsonl", "purpose": "fine-tune", "bytes": 5, "mime_type": "application/jsonl"}
    started = strict(Upload, http.post("/v1/uploads", json=upload).text)
    strict(Upload, http.post(f"/v1/uploads/{started.id}/cancel").text)
    other = http.post("/v1/files", data={"purpose": "user_data"}, files={"file": ("u.txt", b"x")}).json()["id"]
    strict(FileDeleted, http.delete(f"/v1/files/{other}").text)
    strict(FineTuningJob, http.get(f"/v1/fine_tuning/jobs/{job.id}").text)
    for path, kind in {
        **LISTS,
        f"/v1/fine_tuning/jobs/{job.id}/events": FineTuningJobEvent,
        f"/v1/fine_tuning/jobs/{job.id}/checkpoints": FineTuningJobCheckpoint,
    }.items():
        listed = http.get(path).json()
        assert listed["object"] == "list"
        assert listed["data"], path
        for entry in listed["data"]:
            strict(kind, json.dumps(entry))


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", {**CHAT, "temperature": 9}, 400),
        ("POST", "/v1/chat/completions", {"model": BASE}, 400),
        ("POST", "/v1/chat/completions", {**CHAT, "model": "ft:none"}, 404),
        ("POST", "/v1/responses", {**RESPONSE, "tools": [{"type": "web_search"}]}, 400),
        ("GET", "/v1/responses/resp_none", None, 404),
        ("GET", "/v1/batches/batch_none", None, 404),
        ("GET", "/v1/nothing", None, 404),
        ("PUT", "/v1/models", None, 405),
        ("POST", "/v1/moderations", {"input": "x"}, 400),
    ],
)
def test_errors(method: str, path: str, body: dict[str, Any] | None, status: int, http: httpx.Client) -> None:
    answer = http.request(method, path, json=body)
    assert answer.status_code == status
    (error,) = answer.json().values()
    strict(ErrorObject, json.dumps(error))
    assert error["message"]
    assert answer.headers["x-request-id"]
