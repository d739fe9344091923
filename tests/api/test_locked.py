"""Another process holds the database's write lock: what must be written waits, and no stream notices."""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.inprocess import InProcess

LOCKED_SECONDS = 10
STREAMS = 16
PAUSE_SECONDS = 0.05
LONGEST_GAP_SECONDS = 2.0  # 16 clients in Python share two cores with the server; SQL on the loop would be 10
ROW = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}\n'


@pytest.fixture
def slow(served: InProcess) -> Iterator[InProcess]:
    served.engine.pause_seconds = PAUSE_SECONDS
    yield served
    served.engine.pause_seconds = 0.0


def test_a_locked_database_changes_no_stream(slow: InProcess) -> None:
    model = slow.services.catalog.base.name
    with slow.http() as http:
        file_id = http.post("/v1/files", files={"file": ("a.jsonl", ROW * 10)}, data={"purpose": "fine-tune"}).json()[
            "id"
        ]
    asked: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Go on."}],
        "max_tokens": round(2 * LOCKED_SECONDS / PAUSE_SECONDS),
        "stream": True,
    }
    with slow.http() as http:  # which counts its answers in the database, every half second
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {**asked, "stream": False}}
        file = http.post("/v1/files", files={"file": ("a.jsonl", json.dumps(line))}, data={"purpose": "batch"}).json()
        batch = {"input_file_id": file["id"], "endpoint": line["url"], "completion_window": "24h"}
        batch_id = http.post("/v1/batches", json=batch).json()["id"]
        while http.get(f"/v1/batches/{batch_id}").json()["status"] != "in_progress":
            time.sleep(0.05)
    ended = threading.Event()
    begun = threading.Barrier(STREAMS + 1)

    def longest_gap() -> float:
        with slow.http() as http, http.stream("POST", "/v1/chat/completions", json=asked) as answer:
            lines = answer.iter_lines()
            next(lines)
            begun.wait(30)
            longest, last = 0.0, time.monotonic()
            for _ in lines:
                now = time.monotonic()
                longest, last = max(longest, now - last), now
                if ended.is_set():
                    break
            return longest

    def write(method: str, path: str, body: dict[str, Any]) -> int:
        with slow.http() as http:
            return http.request(method, path, json=body).status_code

    with ThreadPoolExecutor(STREAMS) as streams, ThreadPoolExecutor(8) as writers:
        gaps = [streams.submit(longest_gap) for _ in range(STREAMS)]
        begun.wait(30)
        database = sqlite3.connect(slow.data / "tuneport.db")
        database.execute("BEGIN IMMEDIATE")
        written = [
            writers.submit(write, *one)
            for one in (
                ("POST", "/v1/fine_tuning/jobs", {"model": model, "training_file": file_id}),
                ("POST", "/v1/responses", {"model": model, "input": "Hi", "max_output_tokens": 16}),
                ("POST", "/admin/keys", {"name": "meanwhile"}),
                ("DELETE", "/v1/models/ft:nobody", {}),
                ("POST", "/admin/adapters/ft:nobody/pin", {}),
            )
        ]
        time.sleep(LOCKED_SECONDS)
        assert not any(one.done() for one in written[:3]), "what has to be written waits"
        database.rollback()
        database.close()
        ended.set()
        longest = max(gap.result() for gap in gaps)
        assert [one.result() for one in written] == [200, 200, 200, 404, 404]
    assert longest < LONGEST_GAP_SECONDS
