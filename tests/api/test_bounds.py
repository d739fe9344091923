"""What a caller may have, do and keep is bounded, by settings that the refusals name."""

import contextlib
import io
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from adapters.base import BaseModel
from server.errors import RateLimited
from server.http.entry import bodies
from server.inference import embedder
from server.state import responses
from server.state.jobs import LINGER_SECONDS, JobRow
from server.state.responses import ResponseRow
from server.state.status import Status
from tests.inprocess import InProcess, in_process, until
from tests.scripted import ScriptedEngine

ROW = json.dumps({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}) + "\n"
GRADER = {"type": "string_check", "name": "g", "input": "{{sample.output_text}}", "reference": "a", "operation": "eq"}
PARTS = "/v1/uploads/upload_a/parts"
BOUNDS = {
    "max_waiting_jobs": 1,
    "max_files": 2,
    "max_open_uploads": 1,
    "grader_runs_per_hour": 1,
    "jobs_per_hour": 3,
    "max_grader_bytes": 1_000,
    "max_concurrent_requests": 1,
    "max_concurrent_uploads": 1,
    "max_stored_bytes": 10_000,
    "max_waiting_batches": 1,
    "max_responses": 2,
    "max_response_bytes": 15_000,
    "max_body_bytes": 10_000,
}


@pytest.fixture(scope="module")
def bounded(smollm2_base: BaseModel, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    engine = ScriptedEngine(tokenizer=tokenizer)
    with in_process(smollm2_base, engine, tmp_path_factory.mktemp("bounded"), **BOUNDS) as server:
        yield server


@pytest.fixture
def http(bounded: InProcess) -> Iterator[httpx.Client]:
    with bounded.http() as client:
        yield client


def upload(http: httpx.Client, content: str) -> httpx.Response:
    return http.post("/v1/files", files={"file": ("a.jsonl", content)}, data={"purpose": "fine-tune"})


def refused(answer: httpx.Response, status: int, setting: str) -> None:
    assert answer.status_code == status, answer.text
    assert setting in answer.json()["error"]["message"]


def test_files_and_their_bytes(http: httpx.Client) -> None:
    first = upload(http, ROW)
    refused(upload(http, "x" * 9_990), 413, "max_stored_bytes")
    assert upload(http, ROW).status_code == 200
    refused(upload(http, ROW), 413, "max_files")
    http.delete(f"/v1/files/{first.json()['id']}")
    assert upload(http, ROW).status_code == 200


def test_uploads(http: httpx.Client) -> None:
    wanted = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 10, "mime_type": "application/jsonl"}
    refused(http.post("/v1/uploads", json=wanted), 413, "max_files")
    http.delete(f"/v1/files/{http.get('/v1/files').json()['data'][0]['id']}")
    first = http.post("/v1/uploads", json=wanted)
    refused(http.post("/v1/uploads", json=wanted), 413, "max_open_uploads")
    http.post(f"/v1/uploads/{first.json()['id']}/cancel")
    refused(http.post("/v1/uploads", json={**wanted, "bytes": 9_990}), 413, "max_stored_bytes")
    assert http.post("/v1/uploads", json=wanted).status_code == 200


def test_jobs(bounded: InProcess, http: httpx.Client) -> None:
    wanted = {
        "model": bounded.services.catalog.base.name,
        "training_file": http.get("/v1/files").json()["data"][0]["id"],
    }
    job = http.post("/v1/fine_tuning/jobs", json=wanted).json()["id"]
    http.post(f"/v1/fine_tuning/jobs/{job}/pause")
    answer = http.post("/v1/fine_tuning/jobs", json=wanted)
    refused(answer, 429, "max_waiting_jobs")
    assert answer.headers["retry-after"] == "60"
    http.post(f"/v1/fine_tuning/jobs/{job}/cancel")
    again = http.post("/v1/fine_tuning/jobs", json=wanted)
    assert again.status_code == 200
    http.post(f"/v1/fine_tuning/jobs/{again.json()['id']}/cancel")
    refused(http.post("/v1/fine_tuning/jobs", json=wanted), 429, "jobs_per_hour")


def test_jobs_that_failed(bounded: InProcess) -> None:
    jobs = bounded.services.jobs
    for job in (ended := jobs.with_status(Status.CANCELLED)):
        jobs.directory(job.id).path.mkdir(parents=True, exist_ok=True)
    jobs.delete_surplus(1)
    assert len(ended) == 2
    assert len(jobs.with_status(Status.CANCELLED)) == 2, "their trainers may still be ending"
    with Session(jobs._engine) as session, session.begin():
        session.execute(update(JobRow).values(finished_at=JobRow.finished_at - LINGER_SECONDS - 1))
    jobs.delete_surplus(1)
    assert [job.id for job in jobs.with_status(Status.CANCELLED)] == [ended[1].id]
    assert [jobs.directory(job.id).path.exists() for job in ended] == [False, True]


def test_batches(bounded: InProcess, http: httpx.Client) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}
    for file in http.get("/v1/files").json()["data"]:
        http.delete(f"/v1/files/{file['id']}")
    file = http.post("/v1/files", files={"file": ("a.jsonl", json.dumps(line))}, data={"purpose": "batch"}).json()
    wanted = {"input_file_id": file["id"], "endpoint": line["url"], "completion_window": "24h"}
    waiting = bounded.services.batches.create(file["id"], line["url"], None, None)
    refused(http.post("/v1/batches", json=wanted), 429, "max_waiting_batches")
    bounded.services.batches.move(waiting.id, "cancelled")
    assert http.post("/v1/batches", json=wanted).status_code == 200


def test_results_leave_less_room(bounded: InProcess, http: httpx.Client) -> None:
    batch = next(file["id"] for file in http.get("/v1/files").json()["data"] if file["purpose"] == "batch")
    wanted = {"input_file_id": batch, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    until(lambda: bounded.services.batches.next() is None)
    result = io.BytesIO(b"a" * 10_001)
    file = bounded.services.files.create(result, "r.jsonl", "batch_output", file_id="file-result")
    refused(upload(http, ROW), 413, "max_stored_bytes")
    refused(http.post("/v1/batches", json=wanted), 413, "max_stored_bytes")
    http.delete(f"/v1/files/{file.id}")
    assert http.post("/v1/batches", json=wanted).status_code == 200


def test_responses(bounded: InProcess, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "SLACK", 100)
    asked = {"model": bounded.services.catalog.base.name, "input": "a" * 3000}
    first = http.post("/v1/responses", json=asked).json()["id"]
    second = http.post("/v1/responses", json={**asked, "previous_response_id": first}).json()["id"]
    third = http.post("/v1/responses", json={**asked, "previous_response_id": second}).json()["id"]
    refused(http.post("/v1/responses", json={**asked, "previous_response_id": third}), 400, "max_body_bytes")
    with Session(bounded.services.responses._engine) as session, session.begin():
        session.get_one(ResponseRow, first).created_at -= 2
    bounded.services.responses.delete_expired()
    assert http.get(f"/v1/responses/{first}").status_code == 404
    assert http.get(f"/v1/responses/{third}").status_code == 200
    with Session(bounded.services.responses._engine) as session, session.begin():
        session.get_one(ResponseRow, second).created_at -= 2
        session.get_one(ResponseRow, third).bytes += 10_000
    bounded.services.responses.delete_expired()
    assert http.get(f"/v1/responses/{second}").status_code == 404
    assert http.get(f"/v1/responses/{third}").status_code == 200
    monkeypatch.setattr(responses, "SLACK", 0)  # deleted as soon as others come
    with Session(bounded.services.responses._engine) as session, session.begin():
        session.get_one(ResponseRow, third).created_at -= 2
    http.post("/v1/responses", json=asked)
    assert http.get(f"/v1/responses/{third}").status_code == 404


def test_sizes_of_graders(bounded: InProcess, http: httpx.Client) -> None:
    large = {**GRADER, "reference": "a" * 1_000}
    for call, more in (("validate", {}), ("run", {"model_sample": ""})):
        answer = http.post(f"/v1/fine_tuning/alpha/graders/{call}", json={"grader": large, **more})
        refused(answer, 400, "max_grader_bytes")
    file = bounded.services.files.create(io.BytesIO(ROW.encode()), "a.jsonl", "fine-tune", file_id="file-a")
    method = {"type": "supervised", "supervised": {"graders": [GRADER, {**GRADER, "reference": "a" * 900}]}}
    wanted = {"model": bounded.services.catalog.base.name, "training_file": file.id, "method": method}
    with bounded.http(bounded.services.keys.create("other")[1]) as other:
        refused(other.post("/v1/fine_tuning/jobs", json=wanted), 400, "max_grader_bytes")


def test_graders(http: httpx.Client) -> None:
    wanted = {"grader": GRADER, "model_sample": "a"}
    assert http.post("/v1/fine_tuning/alpha/graders/run", json=wanted).status_code == 200
    refused(http.post("/v1/fine_tuning/alpha/graders/run", json=wanted), 429, "grader_runs_per_hour")


def test_requests_at_once_of_a_key(bounded: InProcess, http: httpx.Client) -> None:
    other = http.post("/admin/keys", json={"name": "other"}).json()["secret"]
    asked = {
        "model": bounded.services.catalog.base.name,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 4,
        "stream": True,
    }
    bounded.tell(bounded.engine.flowing.clear)
    with contextlib.ExitStack() as stack, bounded.http(other) as another:
        try:
            engaged = stack.enter_context(bounded.http())
            begun = stack.enter_context(_later(engaged, asked))
            until(lambda: bounded.engine.running == 1)
            refused(http.post("/v1/chat/completions", json=asked), 429, "max_concurrent_requests")
        finally:
            bounded.tell(bounded.engine.flowing.set)
        assert begun.result().status_code == 200
        assert another.post("/v1/chat/completions", json=asked).status_code == 200
    assert http.post("/v1/chat/completions", json=asked).status_code == 200


@contextlib.contextmanager
def _later(http: httpx.Client, asked: dict[str, Any]) -> Iterator[Any]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(http.post, "/v1/chat/completions", json=asked)


def test_the_names_of_models_are_not_everybodys(bounded: InProcess, http: httpx.Client, tmp_path: Path) -> None:
    assert "tuneport_requests" in http.get("/metrics").text
    user = http.post("/admin/keys", json={"name": "user"}).json()["secret"]
    for key, status in ((None, 401), (user, 403)):
        with bounded.http(key) as client:
            assert client.get("/metrics").status_code == status


def test_metrics_without_a_key_where_they_are_open(smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path) -> None:
    engine = ScriptedEngine(tokenizer=tokenizer)
    with in_process(smollm2_base, engine, tmp_path, open_metrics=True) as server, server.http(None) as client:
        assert client.get("/metrics").status_code == 200


def test_no_key_is_made_where_anybody_could_make_it(smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path) -> None:
    engine = ScriptedEngine(tokenizer=tokenizer)
    with in_process(smollm2_base, engine, tmp_path, no_auth=True) as server, server.http(None) as client:
        refused(client.post("/admin/keys", json={"name": "later", "admin": True}), 400, "--no-auth")
        assert client.get("/v1/models").status_code == 200


def test_who_is_refused_is_refused_on_the_headers(smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path) -> None:
    """Of a body that never ends: an answer shows that nobody waited for it."""
    engine = ScriptedEngine(tokenizer=tokenizer)
    with in_process(smollm2_base, engine, tmp_path, requests_per_minute=1, max_body_bytes=1000) as server:
        with server.http() as http:
            user = http.post("/admin/keys", json={"name": "user"}).json()["secret"]
            asked = {"model": smollm2_base.name, "input": "Hi"}
            assert http.post("/v1/responses", json=asked).status_code == 200
        address = httpx.URL(server.base_url)
        for path, key, size, status in (
            ("/v1/files", "sk-wrong", 999, 401),
            ("/admin/adapters", user, 999, 403),
            ("/v1/chat/completions", server.api_key, 999, 429),
            ("/v1/batches", user, 1001, 413),
        ):
            with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
                form = "Content-Type: multipart/form-data; boundary=b\r\n"
                connection.sendall(f"{head}{form}Content-Length: {size}\r\n\r\n--b\r\n".encode())
                assert connection.recv(1000).startswith(f"HTTP/1.1 {status}".encode()), path
        assert not list((server.data / "files" / ".partial").iterdir())


def test_forms_at_once_of_a_key(bounded: InProcess, http: httpx.Client) -> None:
    address = httpx.URL(bounded.base_url)
    with socket.create_connection((address.host, address.port or 80)) as connection:
        head = f"POST {PARTS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bounded.api_key}\r\n"
        form = "Content-Type: multipart/form-data; boundary=b\r\n"
        connection.sendall(f"{head}{form}Content-Length: 99\r\n\r\n--b\r\n".encode())
        until(lambda: bool(bounded.services.limits._running))  # pyright: ignore[reportPrivateUsage]
        refused(http.post(PARTS, files={"data": ("a", "x")}), 429, "max_concurrent_uploads")
    until(lambda: not bounded.services.limits._running)  # pyright: ignore[reportPrivateUsage]
    assert http.post(PARTS, files={"data": ("a", "x")}).status_code == 404


def test_embeddings_that_wait(bounded: InProcess, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "MAX_WAITING", 0)
    asked = {"model": bounded.services.embedder.name, "input": "Hi"}
    refused(http.post("/v1/embeddings", json=asked), 429, "wait already")


def test_a_body_has_to_come(bounded: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PAUSE_SECONDS", 0.2)
    address = httpx.URL(bounded.base_url)
    for path, kind in (("/v1/chat/completions", "application/json"), (PARTS, "multipart/form-data; boundary=b")):
        with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bounded.api_key}\r\n"
            connection.sendall(f"{head}Content-Type: {kind}\r\nContent-Length: 99\r\n\r\n--b\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 408"), path


def test_who_has_no_key_sends_no_body(bounded: InProcess) -> None:
    with bounded.http(None) as http:
        for path in ("/health", "/v2/nothing"):
            assert http.post(path, content=b" " * 4097).status_code == 413


def test_bodies_in_memory(smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path) -> None:
    engine = ScriptedEngine(tokenizer=tokenizer)
    with in_process(smollm2_base, engine, tmp_path, max_buffered_bytes=150_000) as server, server.http() as http:
        asked = {"model": smollm2_base.name, "input": "a" * 100_000}
        refused(http.post("/v1/responses", json=asked), 429, "max_buffered_bytes")
        assert http.post("/v1/responses", json={**asked, "input": "a"}).status_code == 200


def test_room_for_bodies_is_shared_and_given_back() -> None:
    room = bodies._Room(400)  # pyright: ignore[reportPrivateUsage]
    with room.of("ann") as ann, room.of("bob") as bob, room.of("eve") as eve:
        ann(150)
        with pytest.raises(RateLimited):
            ann(51)  # more than half
        bob(200)
        with pytest.raises(RateLimited):
            eve(51)  # more than all
        eve(50)
    with room.of("ann") as ann:
        ann(200)


def test_a_form_has_few_fields(bounded: InProcess, http: httpx.Client) -> None:
    fields = {f"f{number}": "x" for number in range(40)}
    answer = http.post(PARTS, files={"data": ("a", "x")}, data=fields)
    assert answer.status_code == 400
    assert "Too many fields" in answer.json()["error"]["message"]


def test_a_content_type_is_read_in_linear_time(bounded: InProcess, http: httpx.Client) -> None:
    with bounded.pauses() as pauses:
        http.post("/health", content=b"{}", headers={"content-type": 'a/b;a="' + ";" * 60_000})
    assert pauses == []
