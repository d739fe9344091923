"""Streams that end before their answer does."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.base import BaseModel
from server.openai.responses.wire import LOGPROBS
from tests.inprocess import InProcess, in_process, until
from tests.scripted import ScriptedEngine

TOKENS = 4000  # at PAUSE_SECONDS each they would take 40 s
PAUSE_SECONDS = 0.01
FREED_SECONDS = 10
TRIES = 3  # the machine stalls too
GO_ON = [{"role": "user", "content": "Go on."}]
LONG = "Go on, and on. " * 1000


@pytest.fixture
def slow(served: InProcess) -> Iterator[InProcess]:
    served.engine.pause_seconds = PAUSE_SECONDS
    yield served
    served.engine.pause_seconds = 0.0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_frees_its_answer(slow: InProcess, stream: bool) -> None:
    model = slow.openai().models.list().data[0].id
    body = {"model": model, "messages": [{"role": "user", "content": "Go on."}], "max_tokens": TOKENS, "stream": stream}
    with slow.http() as http:
        if stream:
            with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                lines = answer.iter_lines()
                assert "content" in next(lines)
                assert slow.engine.running == 1, [*lines][-9:]
        else:
            with pytest.raises(httpx.ReadTimeout):
                http.post("/v1/chat/completions", json=body, timeout=1)
    deadline = time.monotonic() + FREED_SECONDS
    while slow.engine.running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert slow.engine.running == 0


def test_a_loop_that_was_kept_busy_shows_in_the_metrics(served: InProcess) -> None:
    def late() -> float:
        lines = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if line[0] != "#")
        name = "tuneport_loop_lag_seconds"
        return float(lines[f"{name}_count"]) - float(lines[f'{name}_bucket{{le="0.25"}}'])

    with served.http() as http:
        before = late()
        served.tell(lambda: time.sleep(0.5))
        deadline = time.monotonic() + 10
        while late() == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_client_that_does_not_read_frees_its_answer_and_is_told(
    smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path
) -> None:
    with in_process(smollm2_base, ScriptedEngine(tokenizer=tokenizer), tmp_path, slow_reader_seconds=1) as server:
        asked = {"model": smollm2_base.name, "messages": [{"role": "user", "content": "Go on."}], "stream": True}
        content = json.dumps({**asked, "max_tokens": TOKENS, "n": 128}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.api_key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0]))) as lazy:
            lazy.settimeout(30)
            lazy.sendall(head.encode() + content)
            until(lambda: server.engine.running == 1)
            until(lambda: server.engine.running == 0)  # nothing was read so far
            received = b""
            while b"reader_too_slow" not in received[-2000:]:
                received += lazy.recv(1 << 20)
        events = received.partition(b"event: error")[2].decode()
        assert "an event waited 1 s for its reader" in events
        with server.http() as http:
            assert http.post("/v1/chat/completions", json={**asked, "stream": False}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (
            "/v1/chat/completions",
            {"messages": GO_ON, "logprobs": True, "top_logprobs": 20, "max_tokens": TOKENS, "n": 2},
        ),
        ("/v1/completions", {"prompt": "Go on.", "logprobs": 20, "max_tokens": TOKENS}),
        ("/v1/completions", {"prompt": LONG, "logprobs": 5, "max_tokens": 1, "echo": True}),
        ("/v1/responses", {"input": GO_ON, "include": [LOGPROBS], "top_logprobs": 20, "max_output_tokens": TOKENS}),
    ],
)
def test_many_log_probabilities_stop_nobody(path: str, asked: dict[str, Any], stream: bool, served: InProcess) -> None:
    """Megabytes; to write them at once took a second."""
    with served.http() as http:
        model = http.get("/v1/models").json()["data"][0]["id"]
        for _ in range(TRIES):
            with served.pauses() as pauses:
                answer = http.post(path, json={"model": model, **asked, "stream": stream})
            assert answer.status_code == 200
            assert len(answer.content) > 500_000
            if not pauses:
                break
    assert pauses == []
