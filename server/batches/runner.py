"""Answers batches one after the other, through the application itself: a line is a request like any other.

Nothing is lost with this process: the row says where a batch stands, the answers so far are on disk, and a line that
was being answered is answered again.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Receive, Scope, Send
from tenacity import AsyncRetrying, retry_if_result, wait_exponential

from server.batches import lines
from server.batches.lines import Answers, Failure, Limits, Line, Response
from server.errors import NotFound
from server.inference.engine import LATER
from server.state.batches import ENDED, Batches, BatchRow
from server.state.files import Files
from server.state.keys import Key

logger = logging.getLogger(__name__)

CONCURRENCY = 16
POLL_SECONDS = 0.5
RETRY_SECONDS = 60.0
CALLER = Key(id="key_batch", name="batch", hint="", admin=False, created_at=0)


class BatchRunner:
    """Works through the queue of batches."""

    def __init__(self, batches: Batches, files: Files, root: Path, limits: Limits) -> None:
        self._batches = batches
        self._files = files
        self._root = root
        self._limits = limits
        self._changed = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def start(self, app: ASGIApp) -> None:
        """Take up what a former process left, then the queue."""
        self._loop = asyncio.create_task(self._work(_as_batch(app)))

    async def stop(self) -> None:
        """Stop; the next process goes on."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait({self._loop})

    def changed(self) -> None:
        """Look at the queue again; from any thread."""
        if self._loop is not None:
            self._loop.get_loop().call_soon_threadsafe(self._changed.set)

    async def _work(self, app: ASGIApp) -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://batch", timeout=None) as client:  # noqa: S113
            while True:
                self._changed.clear()
                try:
                    await self._next(client)
                except Exception:  # a full disk, for one: nothing is lost, so try again
                    logger.exception("a batch could not go on; trying again in %.0f s", RETRY_SECONDS)
                    await asyncio.sleep(RETRY_SECONDS)

    async def _next(self, client: httpx.AsyncClient) -> None:
        """Work on the oldest batch; what time does not heal ends it, for the others wait behind it."""
        await asyncio.to_thread(self._sweep)
        row = await asyncio.to_thread(self._batches.next)
        if row is None:
            await self._changed.wait()
            return
        try:
            await self._run(row, client)
        except Exception as error:
            passing = isinstance(error, OSError | SQLAlchemyError) and not isinstance(error, FileNotFoundError)
            if passing:
                raise
            logger.exception("batch %s failed", row.id)
            message = f"the server could not run the batch: {type(error).__name__}"
            found = [{"code": "server_error", "line": None, "message": message, "param": None}]
            await asyncio.to_thread(self._batches.move, row.id, "failed", unless=ENDED, errors=found)

    async def _run(self, row: BatchRow, client: httpx.AsyncClient) -> None:
        try:
            source = (await asyncio.to_thread(self._files.get, row.input_file, needed=True)).path
        except NotFound as error:
            found = [{"code": "invalid_file", "line": None, "message": str(error), "param": "input_file_id"}]
            await asyncio.to_thread(self._batches.move, row.id, "failed", errors=found)
            return
        if row.status == "validating":
            total, found = await asyncio.to_thread(lines.check, source, row.endpoint, self._limits)
            status, values = ("failed", {"errors": found}) if found else ("in_progress", {"total": total})
            await asyncio.to_thread(self._batches.move, row.id, status, unless=("cancelling",), **values)
            row = await asyncio.to_thread(self._batches.get, row.id)
        if row.status == "failed":
            return
        answers = await asyncio.to_thread(Answers, self._root / row.id)
        try:
            cancelled = row.status == "cancelling"  # perhaps before its lines were checked: none is answered
            ended = "cancelled" if cancelled else await self._answer(row, lines.read(source), answers, client)
            await asyncio.to_thread(self._finish, row, source, answers, ended)
        finally:
            await asyncio.to_thread(answers.close)

    def _sweep(self) -> None:
        """Remove the folders of batches that have ended, in whatever way."""
        for folder in self._root.glob("*"):
            with suppress(NotFound):
                if self._batches.get(folder.name).status not in ENDED:
                    continue
            shutil.rmtree(folder, ignore_errors=True)

    async def _answer(self, row: BatchRow, waiting: Iterator[Line], answers: Answers, client: httpx.AsyncClient) -> str:
        """Answer what is not answered yet, until all is, the batch is cancelled, or its time is over."""

        one_at_a_time = asyncio.Lock()

        async def take() -> Line | None:
            async with one_at_a_time:  # a line may be megabytes, and is read beside the loop
                return await asyncio.to_thread(next, waiting, None)

        async def work() -> None:
            while (line := await take()) is not None:
                if line.custom_id not in answers:
                    outcome = await _ask(client, row.endpoint, line)
                    await asyncio.to_thread(answers.add, line.custom_id, outcome)

        workers = [asyncio.create_task(work()) for _ in range(CONCURRENCY)]
        pending = set(workers)
        try:
            while pending:
                _, pending = await asyncio.wait(pending, timeout=POLL_SECONDS)
                now = await asyncio.to_thread(self._batches.get, row.id)
                await asyncio.to_thread(self._batches.count, row.id, answers.counts(now.total))
                if now.status == "cancelling":
                    return "cancelled"
                if now.expires_at <= time.time():
                    return "expired"
        finally:
            for worker in workers:
                worker.cancel()
            results = await asyncio.gather(*workers, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return "completed"

    def _finish(self, row: BatchRow, source: Path, answers: Answers, ended: str) -> None:
        if ended == "expired":
            late = Failure("batch_expired", "This request could not be answered in time.")
            for line in lines.read(source):
                answers.add(line.custom_id, late)
        answers.close()  # what is still on its way comes too late
        counts = answers.counts(self._batches.get(row.id).total)
        if ended == "completed":
            self._batches.move(row.id, "finalizing")
        written: dict[str, str] = {}
        for field, path in (("output_file", answers.good), ("error_file", answers.bad)):
            if path.stat().st_size:
                file_id = f"file-{row.id.removeprefix('batch_')}-{path.stem}"
                with path.open("rb") as stream:
                    name = f"{row.id}_{path.stem}.jsonl"
                    lifetime = row.output_expires_after
                    self._files.create(stream, name, "batch_output", file_id=file_id, expires_after=lifetime)
                written[field] = file_id
        self._batches.count(row.id, counts)
        self._batches.move(row.id, ended, unless=(), **written)


def _as_batch(app: ASGIApp) -> ASGIApp:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"caller": CALLER, "priority": LATER}
        await app(scope, receive, send)

    return wrapped


async def _ask(client: httpx.AsyncClient, endpoint: str, line: Line) -> Response | Failure:
    """Answer one line; while the engine is away, wait for it. What goes wrong is the line's, and keeps nobody else."""
    retrying = AsyncRetrying(
        retry=retry_if_result(lambda answer: answer.status_code == 503), wait=wait_exponential(max=30)
    )
    try:
        answer: httpx.Response = await retrying(
            client.post, endpoint, content=line.body, headers={"content-type": "application/json"}
        )
        return Response(answer.status_code, answer.headers["x-request-id"], answer.content)
    except Exception as error:
        logger.exception("a line of a batch could not be answered")
        message = f"The server had an error while processing this request: {type(error).__name__}."
        return Failure("server_error", message)
