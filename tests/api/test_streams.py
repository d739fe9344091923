"""Streams that end before their answer does."""

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.inprocess import InProcess

TOKENS = 4000  # at PAUSE_SECONDS each they would take 40 s
PAUSE_SECONDS = 0.01
FREED_SECONDS = 10


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
                assert "content" in next(answer.iter_lines())
                assert slow.engine.running == 1
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
