"""Batches: all answered, cancelled, refused, through the openai SDK. Restarts: tests/server/batches/test_runner.py."""

import json
import time
from typing import Any

import openai
import pytest
from openai.types import Batch

BASE = "SmolLM2-135M-Instruct"
CHAT = "/v1/chat/completions"


def line(number: int, url: str = CHAT, **body: Any) -> dict[str, Any]:
    asked = {"model": BASE, "messages": [{"role": "user", "content": f"Say {number}."}], "max_tokens": 4, **body}
    return {"custom_id": f"line-{number}", "method": "POST", "url": url, "body": asked}


def begin(client: openai.OpenAI, lines: list[dict[str, Any]], endpoint: Any = CHAT) -> Batch:
    content = "\n".join(json.dumps(line) for line in lines).encode()
    file = client.files.create(file=("batch.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"a": "b"})


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    deadline = time.monotonic() + 120
    while batch.status not in ("completed", "failed", "cancelled", "expired"):
        assert time.monotonic() < deadline, batch
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    return batch


def records(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    assert file_id is not None
    return {record["custom_id"]: record for record in map(json.loads, client.files.content(file_id).iter_lines())}


def test_every_line_is_answered_good_and_bad_apart(client: openai.OpenAI) -> None:
    batch = ended(client, begin(client, [*(line(number) for number in range(20)), line(20, temperature=9)]))
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (21, 20, 1)
    assert batch.completed_at is not None
    good = records(client, batch.output_file_id)
    assert set(good) == {f"line-{number}" for number in range(20)}
    assert all(record["response"]["body"]["choices"][0]["message"]["content"] for record in good.values())
    bad = records(client, batch.error_file_id)
    assert bad["line-20"]["response"]["status_code"] == 400
    assert bad["line-20"]["response"]["body"]["error"]["param"] == "temperature"
    assert batch.id in [listed.id for listed in client.batches.list(limit=3)]
    with pytest.raises(openai.BadRequestError, match="Cannot cancel"):
        client.batches.cancel(batch.id)


def test_embeddings_in_a_batch(client: openai.OpenAI) -> None:
    asked = {"model": "all-MiniLM-L6-v2", "input": "x"}
    entry = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": asked}
    batch = ended(client, begin(client, [entry], "/v1/embeddings"))
    embedded = records(client, batch.output_file_id)["e"]["response"]["body"]
    assert len(embedded["data"][0]["embedding"]) == 384


def test_a_cancelled_batch_keeps_what_it_has_and_live_requests_go_first(client: openai.OpenAI) -> None:
    long = {"max_tokens": 300, "logit_bias": {"2": -100}}
    batch = begin(client, [line(number, **long) for number in range(200)])
    try:
        while client.batches.retrieve(batch.id).status == "validating":
            time.sleep(0.1)
        started = time.monotonic()
        client.chat.completions.create(model=BASE, messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
        assert time.monotonic() - started < 10, "minutes of work do not stand before it"
        with pytest.raises(openai.BadRequestError, match="job or batch"):
            client.files.delete(batch.input_file_id)
    finally:
        assert client.batches.cancel(batch.id).status == "cancelling"
    batch = ended(client, batch)
    assert batch.status == "cancelled"
    assert batch.cancelled_at is not None


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([line(1), line(1)], "duplicate_custom_id"),
        ([line(1, url="/v1/embeddings")], "mismatched_endpoint"),
        ([{**line(1), "method": "GET"}], "invalid_method"),
        ([{"custom_id": "x"}], "invalid_method"),
        ([], "empty_file"),
    ],
)
def test_a_bad_file_fails_before_a_line_is_answered(
    lines: list[dict[str, Any]], code: str, client: openai.OpenAI
) -> None:
    try:
        batch = ended(client, begin(client, lines))
    except openai.BadRequestError:
        assert not lines, "only an empty file is refused at once"
        return
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [error.code for error in batch.errors.data or ()][:1] == [code]


def test_a_file_for_another_purpose_is_refused(client: openai.OpenAI) -> None:
    file = client.files.create(file=("x.jsonl", b"{}\n"), purpose="user_data")
    with pytest.raises(openai.BadRequestError) as raised:
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    assert raised.value.param == "input_file_id"
