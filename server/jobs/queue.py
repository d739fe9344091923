"""The durable queue: prepares, runs, follows and publishes jobs.

A job's state is its row and its directory, so nothing is lost with this process. At start, every job that was running
is followed again if its trainer still runs, else started again from its last checkpoint, or finished if only the
registration was missing.
"""

import asyncio
import logging

from sqlalchemy.exc import SQLAlchemyError

from server.errors import InvalidRequest
from server.jobs.placement import Placement
from server.jobs.preparation import Preparation
from server.jobs.publishing import Publishing
from server.jobs.runner import Runner
from server.metrics import Metrics
from server.state.jobs import JobRow, Jobs
from server.state.status import ACTIVE, Status
from training.directory import JobDirectory
from training.job import Failure, Result

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
RETRY_SECONDS = 60.0
MAX_TRIES = 8  # for a job that a full disk or a locked database stops
MAX_STARTS = 8  # without a new checkpoint in between; with 4, random kills every 8 s failed two of twelve jobs


class JobQueue:
    """Runs queued jobs, `max_running` at a time, oldest first."""

    def __init__(
        self,
        jobs: Jobs,
        preparation: Preparation,
        publishing: Publishing,
        runner: Runner,
        placement: Placement,
        metrics: Metrics,
        max_running: int,
    ) -> None:
        """Make a queue; nothing runs yet."""
        self._jobs = jobs
        self._preparation = preparation
        self._publishing = publishing
        self._runner = runner
        self._placement = placement
        self._metrics = metrics
        self._failures = metrics.queue_failures.labels(queue="jobs")
        self._max_running = placement.most(max_running)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._warming = False

    async def start(self) -> None:
        """Go on with the jobs that a previous process left, then work through the queue."""
        for row in await asyncio.to_thread(self._jobs.with_status, *ACTIVE):
            self._spawn(row)
        self._loop = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop the trainers; their jobs go on from the last checkpoint at the next start."""
        if self._loop is not None:
            self._loop.cancel()
        running = dict(self._running)
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), *([self._loop] if self._loop else []), return_exceptions=True)
        await asyncio.gather(*(self._runner.stop(self._jobs.directory(job_id)) for job_id in running))
        await self._runner.close()

    def warm(self) -> None:
        """Keep a spawner ready from now on, whenever no trainer runs; to be called when the engine is ready."""
        self._warming = True
        self._changed.set()

    def wake(self) -> None:
        """Tell the queue that a job was created; may be called from any thread."""
        if self._loop is not None:
            self._loop.get_loop().call_soon_threadsafe(self._changed.set)

    async def cancel(self, job_id: str) -> JobRow:
        """Cancel a waiting or running job; its trainer ends within seconds.

        Raises:
            NotFound, InvalidRequest: see `Jobs.cancel`.
        """
        row = await asyncio.to_thread(self._cancel, job_id)
        self._metrics.jobs.labels(status=row.status).inc()
        await self._stop_trainer(job_id)
        return row

    def _cancel(self, job_id: str) -> JobRow:
        row = self._jobs.cancel(job_id)
        directory = self._jobs.directory(job_id)
        if directory.path.is_dir():
            directory.event("The job was cancelled", level="warn")
            # A trainer that is still starting sees this outcome before it trains.
            directory.finish(Failure(code="cancelled", message="the job was cancelled"))
        return row

    async def pause(self, job_id: str) -> JobRow:
        """Stop a waiting or running job; its trainer saves a checkpoint first, if a step is shorter than the grace.

        Raises:
            NotFound, InvalidRequest: see `Jobs.pause`.
        """
        row = await asyncio.to_thread(self._jobs.pause, job_id)
        await self._stop_trainer(job_id)
        await asyncio.to_thread(self._tell, job_id, "The job was paused")
        return row

    async def resume(self, job_id: str) -> JobRow:
        """Queue a paused job again.

        Raises:
            NotFound, InvalidRequest: see `Jobs.resume`.
        """
        row = await asyncio.to_thread(self._jobs.resume, job_id)
        await asyncio.to_thread(self._tell, job_id, "The job was resumed")
        self.wake()
        return row

    def _tell(self, job_id: str, message: str) -> None:
        directory = self._jobs.directory(job_id)
        if directory.path.is_dir():
            directory.event(message)

    async def _stop_trainer(self, job_id: str) -> None:
        task = self._running.get(job_id)
        if task is not None:
            task.cancel()
            await self._runner.stop(self._jobs.directory(job_id))

    async def _work(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self._start_waiting()
            except Exception:  # no room for a row or a process, for example: the jobs keep waiting
                logger.exception("the queue of jobs could not go on; trying again in %.0f s", RETRY_SECONDS)
                await self._wait()
            else:
                await self._changed.wait()

    async def _wait(self) -> None:
        self._failures.inc()
        await asyncio.sleep(RETRY_SECONDS)

    async def _start_waiting(self) -> None:
        waiting = await asyncio.to_thread(self._jobs.with_status, Status.QUEUED)
        for row in waiting[: max(0, self._max_running - len(self._running))]:
            if await asyncio.to_thread(self._jobs.advance, row.id, Status.VALIDATING, only_from=(Status.QUEUED,)):
                self._spawn(row)
        if not waiting and not self._running and self._warming:
            await self._runner.warm()

    def _spawn(self, row: JobRow) -> None:
        task = self._running[row.id] = asyncio.create_task(self._run(row))

        def done(task: asyncio.Task[None]) -> None:
            self._running.pop(row.id, None)
            self._changed.set()
            if not task.cancelled() and task.exception() is not None:
                logger.error("job %s broke off", row.id, exc_info=task.exception())

        task.add_done_callback(done)

    async def _run(self, row: JobRow) -> None:
        """Take one job from the queue to its end; pausing or cancelling the job cancels this task."""
        failure: Failure | None = None
        tries = 0
        while True:
            try:
                if failure is None:
                    if (await asyncio.to_thread(self._jobs.get, row.id)).status not in ACTIVE:
                        return  # paused or cancelled before this task began
                    failure = await self._work_on(row)
                if failure is not None:
                    directory = self._jobs.directory(row.id)
                    if await asyncio.to_thread(directory.outcome) is None:  # the failure is not the trainer's
                        await self._runner.stop(directory)
                    await asyncio.to_thread(self._fail, row, failure)
                ended = await asyncio.to_thread(self._jobs.get, row.id)
                self._metrics.jobs.labels(status=ended.status).inc()
                return
            except (OSError, SQLAlchemyError) as error:  # such as a full disk or a locked database: it may pass
                logger.exception("job %s could not go on; trying again in %.0f s", row.id, RETRY_SECONDS)
                tries += 1
                if tries == MAX_TRIES:
                    failure = failure or _unrunnable(error)
                await self._wait()
            except Exception as error:
                logger.exception("job %s failed", row.id)
                if failure is not None:  # the failure itself could not be recorded
                    await self._wait()
                failure = failure or _unrunnable(error)

    async def _work_on(self, row: JobRow) -> Failure | None:
        outcome = await self._train(row)
        if isinstance(outcome, Result):
            return await asyncio.to_thread(self._publishing.publish, row, outcome)
        return outcome

    def _fail(self, row: JobRow, failure: Failure) -> None:
        """Mark a job failed, first in its row, since its directory may be missing or not writable."""
        if not self._jobs.advance(row.id, Status.FAILED, error=failure.model_dump()):
            return  # it was cancelled meanwhile
        directory = self._jobs.directory(row.id)
        try:
            directory.path.mkdir(parents=True, exist_ok=True)
            directory.event(f"The job failed: {failure.message}", level="error")
        except OSError:
            logger.exception("the event that job %s failed could not be written", row.id)

    async def _train(self, row: JobRow) -> Result | Failure:
        try:
            directory = await asyncio.to_thread(self._preparation.prepare, row)
        except InvalidRequest as error:
            return Failure(code=f"invalid_{error.param}", message=str(error), param=error.param)
        starts, saved = 0, 0
        while (outcome := await asyncio.to_thread(directory.outcome)) is None:
            if await asyncio.to_thread(directory.trainer_pid) is not None:  # started by a previous server process
                await asyncio.sleep(POLL_SECONDS)
                await asyncio.to_thread(self._note_progress, row, directory)
                continue
            environment = self._placement.place(row.id, self._running)
            if environment is None:
                await asyncio.sleep(POLL_SECONDS)
                continue
            if (newest := await asyncio.to_thread(directory.newest_checkpoint)) > saved:
                starts, saved = 0, newest
            if starts == MAX_STARTS:
                return Failure(
                    code="server_error", message=f"the trainer died {MAX_STARTS} times in a row; see trainer.log"
                )
            starts += 1
            if starts > 1 or saved:
                await asyncio.to_thread(directory.event, "Going on from the last checkpoint", level="warn")
            trainer = await self._runner.start(directory, environment)
            while not trainer.done():
                await asyncio.wait({trainer}, timeout=POLL_SECONDS)
                await asyncio.to_thread(self._note_progress, row, directory)
        return outcome

    def _note_progress(self, row: JobRow, directory: JobDirectory) -> None:
        """When the trainer has accepted the files, set the status to running, and `auto` to the trainer's numbers."""
        if row.status == Status.RUNNING:
            return
        for event in directory.events():
            if "hyperparameters" in event["data"]:
                row.status = Status.RUNNING
                numbers = event["data"]["hyperparameters"]
                self._jobs.advance(row.id, Status.RUNNING, only_from=ACTIVE, hyperparameters=numbers)


def _unrunnable(error: Exception) -> Failure:
    return Failure(code="server_error", message=f"the server could not run the job: {type(error).__name__}")
