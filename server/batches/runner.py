"""Answers batches one after the other, by sending each line to the application as a request.

If this process ends, nothing is lost: the row says how far a batch is, the answers so far are on disk, and a line that
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
from server.metrics import Metrics
from server.state.batches import ENDED, Batches, BatchRow, BatchStatus
from server.state.files import Files
from server.state.keys import Key

logger = logging.getLogger(__name__)

CONCURRENCY = 16
POLL_SECONDS = 0.5
RETRY_SECONDS = 60.0
BATCH_KEY = Key(id="key_batch", name="batch", hint="", admin=False, created_at=0)


class BatchRunner:
    """Works through the queue of batches."""

    def __init__(self, batches: Batches, files: Files, root: Path, limits: Limits, metrics: Metrics) -> None:
        self._batches = batches
        self._files = files
        self._root = root
        self._limits = limits
        self._failures = metrics.queue_failures.labels(queue="batches")
        self._changed = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def start(self, app: ASGIApp) -> None:
        """Go on with the batch that a previous process left, then work through the queue."""
        self._loop = asyncio.create_task(self._work(_as_batch(app)))

    async def stop(self) -> None:
        """Stop; the next process goes on from here."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait({self._loop})

    def changed(self) -> None:
        """Tell the runner that the queue has changed; may be called from any thread."""
        if self._loop is not None:
            self._loop.get_loop().call_soon_threadsafe(self._changed.set)

    async def _work(self, app: ASGIApp) -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://batch", timeout=None) as client:  # noqa: S113
            while True:
                self._changed.clear()
                try:
                    await self._next(client)
                except Exception:  # such as a full disk: nothing is lost, so try again
                    logger.exception("a batch could not go on; trying again in %.0f s", RETRY_SECONDS)
                    self._failures.inc()
                    await asyncio.sleep(RETRY_SECONDS)

    async def _next(self, client: httpx.AsyncClient) -> None:
        """Work on the oldest batch. An error that retrying cannot fix ends it, so that the next batch gets its turn."""
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
            await asyncio.to_thread(self._batches.move, row.id, BatchStatus.FAILED, unless=ENDED, errors=found)

    async def _run(self, row: BatchRow, client: httpx.AsyncClient) -> None:
        try:
            source = (await asyncio.to_thread(self._files.get, row.input_file, needed=True)).path
        except NotFound as error:
            found = [{"code": "invalid_file", "line": None, "message": str(error), "param": "input_file_id"}]
            await asyncio.to_thread(self._batches.move, row.id, BatchStatus.FAILED, errors=found)
            return
        if row.status == BatchStatus.VALIDATING:
            total, found = await asyncio.to_thread(lines.check, source, row.endpoint, self._limits)
            status, values = (
                (BatchStatus.FAILED, {"errors": found}) if found else (BatchStatus.IN_PROGRESS, {"total": total})
            )
            await asyncio.to_thread(self._batches.move, row.id, status, unless=(BatchStatus.CANCELLING,), **values)
            row = await asyncio.to_thread(self._batches.get, row.id)
        if row.status == BatchStatus.FAILED:
            return
        answers = await asyncio.to_thread(Answers, self._root / row.id)
        try:
            ended = BatchStatus.CANCELLED  # perhaps before its lines were checked: none is answered then
            if row.status != BatchStatus.CANCELLING:
                ended = await self._answer(row, lines.read(source), answers, client)
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

    async def _answer(
        self, row: BatchRow, waiting: Iterator[Line], answers: Answers, client: httpx.AsyncClient
    ) -> BatchStatus:
        """Answer the remaining lines, until the batch is complete, cancelled or expired; return which."""

        one_at_a_time = asyncio.Lock()

        async def take() -> Line | None:
            async with one_at_a_time:  # a line may be megabytes, so it is read on a thread
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
                if now.status == BatchStatus.CANCELLING:
                    return BatchStatus.CANCELLED
                if now.expires_at <= time.time():
                    return BatchStatus.EXPIRED
        finally:
            for worker in workers:
                worker.cancel()
            results = await asyncio.gather(*workers, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return BatchStatus.COMPLETED

    def _finish(self, row: BatchRow, source: Path, answers: Answers, ended: BatchStatus) -> None:
        if ended == BatchStatus.EXPIRED:
            late = Failure("batch_expired", "This request could not be answered in time.")
            for line in lines.read(source):
                answers.add(line.custom_id, late)
        answers.close()  # what is still on its way comes too late
        counts = answers.counts(self._batches.get(row.id).total)
        if ended == BatchStatus.COMPLETED:
            self._batches.move(row.id, BatchStatus.FINALIZING)
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
        scope["state"] = {"caller": BATCH_KEY, "priority": LATER}
        await app(scope, receive, send)

    return wrapped


async def _ask(client: httpx.AsyncClient, endpoint: str, line: Line) -> Response | Failure:
    """Answer one line, waiting while the engine is down. Its errors go into its own record and stop no other line."""
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
