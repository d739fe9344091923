"""A batch's file as people write it, end to end: each line comes back under its own custom_id."""

import gzip
import json
import time
from typing import Any

import openai
import pytest
from openai.types import Batch

from tests.inprocess import InProcess

MODEL = "SmolLM2-135M-Instruct"
CHAT: Any = "/v1/chat/completions"
END_SECONDS = 30


def line(custom_id: Any, content: str = "Hi", **more: Any) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 2}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **more})


def ended(client: openai.OpenAI, content: bytes) -> Batch:
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"a": "\0\u2028"}
    )
    until = time.monotonic() + END_SECONDS
    while batch.status not in ("completed", "failed"):
        assert time.monotonic() < until, batch
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def ids(client: openai.OpenAI, file_id: str | None) -> list[str]:
    assert file_id is not None
    return sorted(json.loads(one)["custom_id"] for one in client.files.content(file_id).text.split("\n") if one)


IDS = ("plain", "\0", "\u2028\x85", "\u202e", "half \ud83d", "😀", "a/b\\c\"'", "w" * 512)


def test_a_line_is_the_request_it_would_be_alone(client: openai.OpenAI) -> None:
    batch = ended(client, (line("a", "half \ud83d, \u2028 and ü 😀") + "\n" + line("b", max_tokens=-1)).encode())
    assert batch.status == "completed"
    assert ids(client, batch.output_file_id) == ["a", "b"], "what stands beside the body has no effect"


def test_every_custom_id_comes_back_as_it_was(client: openai.OpenAI) -> None:
    batch = ended(client, "\n".join(line(one) for one in IDS).encode())
    assert batch.status == "completed"
    assert ids(client, batch.output_file_id) == sorted(IDS)


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff{0}\r\n\r\n \t\r\n\ufeff{1}\r\n",
        "{0}\r{1}\r",
        "{0}{1}",
        "{0}\ufeff{1}",
    ],
    ids=["Windows", "old Mac", "glued", "glued with a mark"],
)
def test_a_file_of_any_tool_is_read(content: str, client: openai.OpenAI) -> None:
    batch = ended(client, content.replace("{0}", line("a", "x\u2028y\x85")).replace("{1}", line("b")).encode())
    assert batch.status == "completed", batch.errors
    assert ids(client, batch.output_file_id) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "code", "number", "said"),
    [
        (line("a").encode("utf-16"), "invalid_file", None, "UTF-16"),
        (gzip.compress(line("a").encode()), "invalid_file", None, "gzip"),
        (f"[{line('a')}]".encode(), "invalid_file", None, "JSON array"),
        (json.dumps(json.loads(line("a")), indent=2).encode(), "invalid_file", None, "over several lines"),
        (f"{line('a')}\n{line('b').replace('Hi', 'é')}".encode("latin-1"), "invalid_json_line", 2, "UTF-8"),
        (f"{line('a')}\n{line('b')},".encode(), "invalid_json_line", 2, "Extra data"),
        (line("x" * 513).encode(), "invalid_request", 1, "512"),
        (line(["a"]).encode(), "missing_required_parameter", 1, "custom_id"),
        (line("a", url="/" * 1_000_000).encode(), "mismatched_endpoint", 1, "url is"),
        (b"\xef\xbb\xbf\r\n", "empty_file", None, "no requests"),
    ],
)
def test_what_is_no_batch_says_what_it_is(
    content: bytes, code: str, number: int | None, said: str, client: openai.OpenAI
) -> None:
    batch = ended(client, content)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data
    error = batch.errors.data[0]
    assert (error.code, error.line) == (code, number)
    assert said in f"{error.message} {error.param}"
    assert len(error.message or "") < 400


@pytest.mark.parametrize("change", [{"unknown": 1}, {"output_expires_after": {"anchor": "created_at"}}])
def test_what_has_no_effect_is_refused(change: dict[str, Any], served: InProcess) -> None:
    body = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h", **change}
    with served.http() as http:
        answer = http.post("/v1/batches", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(next(iter(change)))
