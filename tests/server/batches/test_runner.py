"""Batches over restarts, torn files and an engine that is away; the application is a small one in the test's hand."""

import asyncio
import errno
import io
import json
import resource
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.batches import lines
from server.batches import runner as module
from server.batches.lines import Answers, Failure, Limits
from server.batches.runner import BatchRunner
from server.errors import TooLarge
from server.inference.engine import LATER
from server.metrics import Metrics
from server.state.batches import Batches, BatchRow, Counts
from server.state.files import Files

CHAT = "/v1/chat/completions"
COUNT = 40
LIMITS = Limits(10_000, 100)


class App:
    """Answers each line after a moment; `away` of them with 503 first, and breaks at those `broken`.

    Args:
        text: what each answer is.
    """

    def __init__(self, away: int = 0, broken: Collection[int] = (), text: bytes | None = None) -> None:
        self.asked: list[int] = []
        self.text = text
        self.broken = broken
        self.away = away

    async def answer(self, request: Request) -> Response:
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
        if self.text is not None:
            return Response(self.text, 200, headers)
        return JSONResponse({"number": number}, 400 if number == 7 else 200, headers)

    def asgi(self) -> Starlette:
        return Starlette(routes=[Route(CHAT, self.answer, methods=["POST"])])


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


@asynccontextmanager
async def running(app: App, database: Engine, files: Files, tmp_path: Path) -> AsyncIterator[BatchRunner]:
    runner = BatchRunner(Batches(database), files, tmp_path / "batches", LIMITS, Metrics())
    runner.start(app.asgi())
    yield runner
    await runner.stop()


async def until_gone(folder: Path) -> None:
    while folder.exists():
        await asyncio.sleep(0.01)


def records(files: Files, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(line) for line in files.get(file_id).path.read_text().splitlines()]


@pytest.mark.anyio
async def test_a_batch_goes_on_after_a_restart_and_no_line_is_answered_twice_in_its_output(
    database: Engine, files: Files, tmp_path: Path
) -> None:
    batches, app = Batches(database), App(away=3)
    row = make(database, files)
    first = BatchRunner(batches, files, tmp_path / "batches", LIMITS, Metrics())
    first.start(app.asgi())
    while len(app.asked) < 10:
        await asyncio.sleep(0.005)
    await first.stop()
    kept = tmp_path / "batches" / row.id
    with (kept / "output.jsonl").open("a") as torn:
        torn.write('{"id": "batch_req_1", "custom_id": "c3", ')  # as a crash leaves it
    second = BatchRunner(batches, files, tmp_path / "batches", LIMITS, Metrics())
    second.start(app.asgi())
    row = await asyncio.wait_for(until_ended(batches, row.id), 60)
    await asyncio.wait_for(until_gone(kept), 10)
    await second.stop()
    assert (row.status, row.total, row.completed, row.failed) == ("completed", COUNT, COUNT - 1, 1)
    good, bad = records(files, row.output_file), records(files, row.error_file)
    assert sorted(record["response"]["body"]["number"] for record in [*good, *bad]) == list(range(COUNT))
    assert [record["custom_id"] for record in bad] == ["c7"]
    assert len(app.asked) < 2 * COUNT, "what was answered before the restart is not asked again"


@pytest.mark.anyio
async def test_a_batch_that_ran_out_of_time_keeps_its_answers_and_names_the_rest(
    database: Engine, files: Files, tmp_path: Path
) -> None:
    batches = Batches(database)
    row = make(database, files)
    batches.move(row.id, "in_progress", expires_at=0)
    runner = BatchRunner(batches, files, tmp_path / "batches", LIMITS, Metrics())
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
    runner = BatchRunner(batches, files, tmp_path / "batches", LIMITS, Metrics())
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
    runner = BatchRunner(batches, files, tmp_path / "batches", LIMITS, Metrics())
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
    runner = BatchRunner(batches, files, tmp_path / "batches", LIMITS, metrics)
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
    _, found = lines.check(path, CHAT, LIMITS)
    expected = [(number, code) for number, (_, code) in enumerate(faulty, start=1) if code]
    assert [(error["line"], error["code"]) for error in found] == expected


def lists(count: int) -> str:
    body = {"model": "m", "unknown": [[]] * count}
    return json.dumps({"custom_id": "a", "method": "POST", "url": CHAT, "body": body})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lists(100), "holds more than 100 values (max_body_items)"),
        ('{"a":1}' + lists(100), "holds more than 100 values (max_body_items)"),
        ('{"a":' + "[" * 9_990, "holds more than 100 values (max_body_items)"),
        ("x" * 100_000, "longer than 10000 bytes (max_body_bytes)"),
        ("é" * 5_001, "longer than 10000 bytes (max_body_bytes)"),
    ],
    ids=["lists", "glued lists", "nested lists", "no end", "letters"],
)
def test_a_line_over_a_bodys_limits_is_refused_before_it_is_parsed(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(content + "\n{}\n")
    _, found = lines.check(path, CHAT, LIMITS)
    assert [(error["line"], error["code"]) for error in found] == [
        (1, "invalid_request"),
        (2, "missing_required_parameter"),
    ]
    assert message in found[0]["message"]


@pytest.mark.anyio
async def test_an_answer_of_megabytes_comes_as_it_was_and_takes_the_loop_no_time(
    database: Engine, files: Files, tmp_path: Path
) -> None:
    text = b'{"a":[' + b"1.0e2," * 1_000_000 + '"\u2028\x85é"]}'.encode()
    row = make(database, files, 1)
    longest = 0.0
    async with running(App(text=text), database, files, tmp_path):
        ending = asyncio.create_task(until_ended(Batches(database), row.id))
        while not ending.done():
            before = time.thread_time()
            await asyncio.sleep(0.01)
            longest = max(longest, time.thread_time() - before)
    row = await ending
    assert (row.status, row.completed) == ("completed", 1)
    written = files.get(row.output_file or "").path.read_text(encoding="utf-8")
    assert len(written.splitlines()) == 1, "no reader takes a separator within a text for the end of a line"
    expected = text.decode().replace("\u2028", "\\u2028").replace("\x85", "\\u0085")
    assert f'"body": {expected}}}, "error": null}}' in written
    assert longest < 0.1


@pytest.mark.anyio
async def test_a_result_is_never_too_large(database: Engine, tmp_path: Path) -> None:
    files = Files(database, tmp_path / "files", 10_000, max_stored_bytes=10_000)
    row = make(database, files, 2)
    async with running(App(text=b'"' + b"a" * 10_000 + b'"'), database, files, tmp_path):
        row = await asyncio.wait_for(until_ended(Batches(database), row.id), 60)
        await asyncio.wait_for(until_gone(tmp_path / "batches" / row.id), 10)
    assert (row.status, row.completed) == ("completed", 2)
    assert len(records(files, row.output_file)) == 2
    with pytest.raises(TooLarge, match="max_stored_bytes"):
        files.create(io.BytesIO(b"a"), "a.txt", "user_data")
    with pytest.raises(TooLarge, match="max_stored_bytes"):
        files.check_room(1, result=True)


@pytest.mark.anyio
async def test_nothing_is_left_of_a_batch_that_ended_in_whatever_way(
    database: Engine, files: Files, tmp_path: Path
) -> None:
    batches = Batches(database)
    broken, waiting, ended = (make(database, files) for _ in range(3))
    batches.move(broken.id, "in_progress", created_at=1)
    files.get(broken.input_file).path.unlink()
    batches.move(ended.id, "failed")
    folders = [tmp_path / "batches" / one for one in (broken.id, ended.id, "batch_unknown", waiting.id)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "output.jsonl").write_text('{"id": "batch_req_1", "custom_id": "c1", "response": null}\n')
    app = App()
    async with running(app, database, files, tmp_path):
        waiting = await asyncio.wait_for(until_ended(batches, waiting.id), 60)
        for folder in folders:
            await asyncio.wait_for(until_gone(folder), 10)
    assert (batches.get(broken.id).status, waiting.status) == ("failed", "completed")
    assert sorted(app.asked) == [number for number in range(COUNT) if number != 1], "what is needed is not swept"


@pytest.mark.anyio
async def test_a_batch_that_is_cancelled_before_its_check_answers_no_line(
    database: Engine, files: Files, tmp_path: Path
) -> None:
    batches, app = Batches(database), App()
    row = make(database, files)
    batches.cancel(row.id)
    async with running(app, database, files, tmp_path):
        row = await asyncio.wait_for(until_ended(batches, row.id), 60)
    assert (row.status, row.output_file, app.asked) == ("cancelled", None, [])


def answered(body: str, status: int = 200) -> lines.Response:
    return lines.Response(status, "req_1", json.dumps(body).encode())


def test_answers_end_at_the_last_whole_line(tmp_path: Path) -> None:
    answers = Answers(tmp_path)
    answers.add("half \ud83d", answered('{"id": "x", "custom_id": "y"}\n'))
    answers.add("half \ud83d", answered("once"))
    answers.close()
    with answers.good.open("a") as torn:
        torn.write('{"id": "batch_req_1", "custom_id": "b", "resp')
    again = Answers(tmp_path)
    again.add("c", Failure("server_error", "why"))
    again.add('"d\\', answered("no", 400))
    again.close()
    last = Answers(tmp_path)
    assert all(one in last for one in ("half \ud83d", "c", '"d\\'))
    assert "b" not in last
    assert last.counts(4) == Counts(4, 1, 2)
    last.close()
    good, bad = ([json.loads(line) for line in path.read_text().splitlines()] for path in (last.good, last.bad))
    assert [one["response"]["body"] for one in good] == ['{"id": "x", "custom_id": "y"}\n']
    assert [one["error"] for one in bad] == [{"code": "server_error", "message": "why"}, None]
    assert bad[1]["response"] == {"status_code": 400, "request_id": "req_1", "body": "no"}


def test_nothing_is_written_after_a_record_that_found_no_room(tmp_path: Path) -> None:
    answers = Answers(tmp_path)
    answers.add("a", answered("whole"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (answers.good.stat().st_size + 50, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            answers.add("b", answered("torn" * 10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for path in (answers.good, answers.bad):
        with pytest.raises(OSError, match="too large"):
            answers.add("c", answered("no", 200 if path == answers.good else 400))
    assert answers.bad.read_bytes() == b""
    torn = answers.good.read_bytes()
    assert torn.count(b"\n") == 1
    assert not torn.endswith(b"\n")
    answers.close()
