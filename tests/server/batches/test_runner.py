"""Batches over restarts, torn files and an engine that is away; the application is a small one in the test's hand."""

import asyncio
import errno
import io
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from adapters.database import connect
from server.batches import lines
from server.batches import runner as module
from server.batches.lines import Answers
from server.batches.runner import BatchRunner
from server.inference.engine import LATER
from server.metrics import Metrics
from server.state.batches import Batches, BatchRow
from server.state.files import Files
from server.state.tables import migrate

CHAT = "/v1/chat/completions"
COUNT = 40


class App:
    """Answers each line after a moment; `away` of them with 503 first, and breaks at those `broken`."""

    def __init__(self, away: int = 0, broken: Collection[int] = ()) -> None:
        self.asked: list[int] = []
        self.broken = broken
        self.away = away

    async def answer(self, request: Request) -> JSONResponse:
        assert request.state.priority == LATER
        await asyncio.sleep(0.02)
        headers = {"x-request-id": "req_1"}
        if self.away > 0:
            self.away -= 1
            return JSONResponse({"error": {}}, 503, headers)
        number = (await request.json())["number"]
        if number in self.broken:
            raise RuntimeError("nobody foresaw this")
        self.asked.append(number)
        return JSONResponse({"number": number}, 400 if number == 7 else 200, headers)

    def asgi(self) -> Starlette:
        return Starlette(routes=[Route(CHAT, self.answer, methods=["POST"])])


@pytest.fixture
def database(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'db'}")
    migrate(engine)
    return engine


@pytest.fixture
def files(database: Engine, tmp_path: Path) -> Files:
    return Files(database, tmp_path / "files", 10**6)


def make(database: Engine, files: Files, count: int = COUNT) -> BatchRow:
    content = "".join(
        json.dumps({"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": {"number": number}}) + "\n"
        for number in range(count)
    )
    file = files.create(io.BytesIO(content.encode()), "batch.jsonl", "batch")
    return Batches(database).create(file.id, CHAT, None, None)


async def until_ended(batches: Batches, batch_id: str) -> BatchRow:
    while batches.get(batch_id).status not in ("completed", "failed", "cancelled", "expired"):
        await asyncio.sleep(0.05)
    return batches.get(batch_id)


def records(files: Files, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(line) for line in files.get(file_id).path.read_text().splitlines()]


@pytest.mark.anyio
async def test_a_batch_goes_on_after_a_restart_and_no_line_is_answered_twice_in_its_output(
    database: Engine, files: Files, tmp_path: Path
) -> None:
    batches, app = Batches(database), App(away=3)
    row = make(database, files)
    first = BatchRunner(batches, files, tmp_path / "batches", Metrics())
    first.start(app.asgi())
    while len(app.asked) < 10:
        await asyncio.sleep(0.005)
    await first.stop()
    kept = tmp_path / "batches" / row.id / "answers.jsonl"
    with kept.open("a") as torn:
        torn.write('{"custom_id": "c3')  # as a crash leaves it
    second = BatchRunner(batches, files, tmp_path / "batches", Metrics())
    second.start(app.asgi())
    row = await asyncio.wait_for(until_ended(batches, row.id), 60)
    await second.stop()
    assert (row.status, row.total, row.completed, row.failed) == ("completed", COUNT, COUNT - 1, 1)
    good, bad = records(files, row.output_file), records(files, row.error_file)
    assert sorted(record["response"]["body"]["number"] for record in [*good, *bad]) == list(range(COUNT))
    assert [record["custom_id"] for record in bad] == ["c7"]
    assert len(app.asked) < 2 * COUNT, "what was answered before the restart is not asked again"
    assert not kept.exists()


@pytest.mark.anyio
async def test_a_batch_that_ran_out_of_time_keeps_its_answers_and_names_the_rest(
    database: Engine, files: Files, tmp_path: Path
) -> None:
    batches = Batches(database)
    row = make(database, files)
    batches.move(row.id, "in_progress", expires_at=0)
    runner = BatchRunner(batches, files, tmp_path / "batches", Metrics())
    runner.start(App(away=10**6).asgi())
    row = await asyncio.wait_for(until_ended(batches, row.id), 30)
    await runner.stop()
    assert row.status == "expired"
    late = records(files, row.error_file)
    assert len(late) == COUNT
    assert {record["error"]["code"] for record in late} == {"batch_expired"}


@pytest.mark.anyio
async def test_a_line_whose_answer_raises_has_its_error_and_keeps_nobody_else(
    database: Engine, files: Files, tmp_path: Path
) -> None:
    batches, app = Batches(database), App(broken=(3, 5))
    row = make(database, files)
    runner = BatchRunner(batches, files, tmp_path / "batches", Metrics())
    runner.start(app.asgi())
    row = await asyncio.wait_for(until_ended(batches, row.id), 60)
    await runner.stop()
    assert (row.status, row.completed, row.failed) == ("completed", COUNT - 3, 3)
    failed = {record["custom_id"]: record["error"] for record in records(files, row.error_file)}
    assert failed.pop("c7") is None
    message = "The server had an error while processing this request: RuntimeError."
    assert failed == {key: {"code": "server_error", "message": message} for key in ("c3", "c5")}


@pytest.mark.anyio
@pytest.mark.parametrize("content", [None, b"not what was checked"], ids=["gone", "changed"])
async def test_a_batch_that_cannot_be_run_fails_and_the_next_one_is_answered(
    content: bytes | None, database: Engine, files: Files, tmp_path: Path
) -> None:
    batches = Batches(database)
    bad, good = make(database, files), make(database, files)
    batches.move(bad.id, "in_progress", total=COUNT, created_at=1)
    path = files.get(bad.input_file).path
    path.unlink() if content is None else path.write_bytes(content)
    runner = BatchRunner(batches, files, tmp_path / "batches", Metrics())
    runner.start(App().asgi())
    good = await asyncio.wait_for(until_ended(batches, good.id), 60)
    await runner.stop()
    assert good.status == "completed"
    bad = batches.get(bad.id)
    assert bad.status == "failed"
    assert bad.errors is not None
    assert bad.errors[0]["code"] == "server_error"


@pytest.mark.anyio
async def test_a_queue_that_cannot_go_on_is_counted_and_goes_on(
    database: Engine, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    batches, metrics = Batches(database), Metrics()
    row, find = make(database, files), batches.next
    faults = [OSError(errno.EMFILE, "Too many open files")] * 3

    def fails() -> BatchRow | None:
        if faults:
            raise faults.pop()
        return find()

    monkeypatch.setattr(batches, "next", fails)
    runner = BatchRunner(batches, files, tmp_path / "batches", metrics)
    runner.start(App().asgi())
    row = await asyncio.wait_for(until_ended(batches, row.id), 60)
    await runner.stop()
    assert row.status == "completed"
    assert metrics.registry.get_sample_value("tuneport_queue_failures_total", {"queue": "batches"}) == 3


def test_every_fault_of_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    good = {"custom_id": "a", "method": "POST", "url": CHAT, "body": {}}
    faulty: list[tuple[Any, str]] = [
        (good, ""),
        ("{", "invalid_json_line"),
        ([1], "missing_required_parameter"),
        ({**good, "custom_id": 5}, "missing_required_parameter"),
        (good, "duplicate_custom_id"),
        ({**good, "custom_id": "b", "url": "/admin/keys"}, "mismatched_endpoint"),
        ({**good, "custom_id": "c", "body": None}, "missing_required_parameter"),
        ({**good, "custom_id": "d", "body": {"stream": True}}, "invalid_request"),
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line, _ in faulty))
    _, found = lines.check(path, CHAT)
    expected = [(number, code) for number, (_, code) in enumerate(faulty, start=1) if code]
    assert [(error["line"], error["code"]) for error in found] == expected


def test_answers_end_at_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    answers = Answers(path)
    answers.add({"custom_id": "a", "response": {"status_code": 200}})
    answers.close()
    with path.open("a") as torn:
        torn.write('{"custom_id": "b", "resp')
    again = Answers(path)
    again.add({"custom_id": "c", "response": None})
    again.close()
    assert Answers(path).done == {"a": True, "c": False}
    assert len(path.read_text().splitlines()) == 2
