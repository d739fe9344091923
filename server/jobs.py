"""The durable queue: starts trainers as processes of their own, follows them, and registers what they made.

The state is the job's row and its directory, so nothing is lost with this process: at start every job that was running
is followed again where its trainer still runs, started again from its last checkpoint where it does not, and finished
where only the registration was missing.
"""

import asyncio
import contextlib
import csv
import io
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from adapters import names
from adapters.base import BaseModel
from adapters.errors import AdapterError
from server.http.metrics import Metrics
from server.models.catalog import Catalog
from server.state.files import Files
from server.state.jobs import RUNNING, WAITING, Jobs
from server.state.tables import JobRow
from training.job import Failure, Hyperparameters, JobDirectory, Result, TrainingJob, read_lines

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
STOP_GRACE_SECONDS = 3.0
MAX_STARTS = 4  # the first, and three after a trainer died without a word
KEPT_CHECKPOINTS = 3  # as many as OpenAI keeps


class JobQueue:
    """Runs queued jobs, `max_running` at a time, oldest first."""

    def __init__(
        self,
        jobs: Jobs,
        files: Files,
        catalog: Catalog,
        base: BaseModel,
        metrics: Metrics,
        *,
        organization: str,
        max_running: int,
    ) -> None:
        self._jobs = jobs
        self._files = files
        self._catalog = catalog
        self._base = base
        self._metrics = metrics
        self._organization = organization
        self._max_running = max_running
        self._running: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what a former process left, then the queue."""
        for row in await asyncio.to_thread(self._jobs.with_status, *RUNNING):
            self._spawn(row.id, self._run(row))
        self._loop = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop the trainers; their jobs go on from the last checkpoint at the next start."""
        if self._loop is not None:
            self._loop.cancel()
        running = dict(self._running)
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), *([self._loop] if self._loop else []), return_exceptions=True)
        await asyncio.gather(*(_kill(self._jobs.directory(job_id)) for job_id in running))

    def wake(self) -> None:
        """Look at the queue now; call it after a job was created."""
        self._changed.set()

    async def cancel(self, job_id: str) -> JobRow:
        """Cancel a job, waiting or running; its trainer is gone within seconds.

        Raises:
            NotFound, InvalidState: see `Jobs.cancel`.
        """
        row = await asyncio.to_thread(self._jobs.cancel, job_id)
        self._metrics.jobs.labels(status=row.status).inc()
        directory = self._jobs.directory(job_id)
        if directory.path.is_dir():
            directory.event("The job was cancelled", level="warn")
            # A trainer that is only just starting finds the outcome before it trains.
            directory.finish(Failure(code="cancelled", message="the job was cancelled"))
        task = self._running.get(job_id)
        if task is not None:
            task.cancel()
            await _kill(directory)
        return row

    async def _work(self) -> None:
        while True:
            self._changed.clear()
            waiting = await asyncio.to_thread(self._jobs.with_status, WAITING)
            for row in waiting[: max(0, self._max_running - len(self._running))]:
                if self._jobs.advance(row.id, RUNNING[0]):
                    self._spawn(row.id, self._run(row))
            await self._changed.wait()

    def _spawn(self, job_id: str, run: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(run)
        self._running[job_id] = task

        def done(task: asyncio.Task[None]) -> None:
            self._running.pop(job_id, None)
            self._changed.set()
            if not task.cancelled() and task.exception() is not None:
                logger.error("job %s broke off", job_id, exc_info=task.exception())

        task.add_done_callback(done)

    async def _run(self, row: JobRow) -> None:
        try:
            outcome = await self._train(row)
            if isinstance(outcome, Result):
                outcome = await asyncio.to_thread(self._publish, row, outcome)
        except Exception as error:
            logger.exception("job %s failed", row.id)
            outcome = Failure(code="server_error", message=f"the server could not run the job: {type(error).__name__}")
        if outcome is not None:
            self._jobs.directory(row.id).event(f"The job failed: {outcome.message}", level="error")
            self._jobs.advance(row.id, "failed", error=outcome.model_dump())
        self._metrics.jobs.labels(status=self._jobs.get(row.id).status).inc()

    async def _train(self, row: JobRow) -> Result | Failure:
        directory = await asyncio.to_thread(self._prepare, row)
        starts = 0
        while (outcome := directory.outcome()) is None:
            if directory.runner() is None:
                if starts == MAX_STARTS:
                    return Failure(code="server_error", message=f"the trainer died {MAX_STARTS} times; see trainer.log")
                starts += 1
                if starts > 1:
                    directory.event("The trainer died; going on from the last checkpoint", level="warn")
                process = await _start(directory)
                while process.returncode is None:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(process.wait(), POLL_SECONDS)
                    self._note_progress(row, directory)
            else:  # a trainer that a former server process started
                await asyncio.sleep(POLL_SECONDS)
                self._note_progress(row, directory)
        return outcome

    def _prepare(self, row: JobRow) -> JobDirectory:
        validation = self._files.get(row.validation_file).path if row.validation_file else None
        job = TrainingJob(
            id=row.id,
            base_model=self._base.name,
            base_path=self._base.path,
            training_file=self._files.get(row.training_file).path.absolute(),
            validation_file=validation.absolute() if validation else None,
            hyperparameters=Hyperparameters.model_validate(row.hyperparameters),
            seed=row.seed,
        )
        return JobDirectory.create(self._jobs.directory(row.id).path.absolute(), job)

    def _note_progress(self, row: JobRow, directory: JobDirectory) -> None:
        """Once the trainer has accepted the files: the job runs, and `auto` has become numbers."""
        if row.status == RUNNING[1]:
            return
        for event in directory.events():
            if "hyperparameters" in event["data"]:
                row.status = RUNNING[1]
                self._jobs.advance(row.id, row.status, hyperparameters=event["data"]["hyperparameters"])

    def _publish(self, row: JobRow, result: Result) -> Failure | None:
        """Register the adapters and the result file; every step may be done twice."""
        directory = self._jobs.directory(row.id)
        try:
            for checkpoint in result.checkpoints[-KEPT_CHECKPOINTS:]:
                self._catalog.register(
                    names.checkpoint(row.result_name, checkpoint.step),
                    directory.path / checkpoint.directory,
                    self._organization,
                )
            self._catalog.register(row.result_name, directory.adapter, self._organization)
        except AdapterError as error:
            return Failure(code="invalid_adapter", message=f"the trained adapter cannot be served: {error}")
        table = io.BytesIO(_result_csv(directory).encode())
        file_id = "file-" + row.id.removeprefix("ftjob-")
        self._files.create(table, "step_metrics.csv", "fine-tune-results", file_id)
        if self._jobs.advance(
            row.id,
            "succeeded",
            fine_tuned_model=row.result_name,
            trained_tokens=result.trained_tokens,
            result_file=file_id,
            hyperparameters=result.hyperparameters.model_dump(),
        ):
            directory.event(f"New fine-tuned model created: {row.result_name}")
            directory.event("The job has successfully completed")
        return None


async def _start(directory: JobDirectory) -> asyncio.subprocess.Process:
    with directory.log_file.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "training", str(directory.description)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory.path,
            start_new_session=True,
        )


async def _kill(directory: JobDirectory) -> None:
    """End the job's trainer: SIGTERM, and SIGKILL after a grace."""
    for sign, grace in ((signal.SIGTERM, STOP_GRACE_SECONDS), (signal.SIGKILL, STOP_GRACE_SECONDS)):
        runner = directory.runner()
        if runner is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(runner, sign)
        for _ in range(round(grace / 0.1)):
            if directory.runner() is None:
                return
            await asyncio.sleep(0.1)
    logger.error("trainer %s of %s does not end", directory.runner(), Path(directory.path).name)


def _result_csv(directory: JobDirectory) -> str:
    """OpenAI's result file, a row a step."""
    columns = {
        "step": "step",
        "train_loss": "train_loss",
        "train_accuracy": "train_mean_token_accuracy",
        "valid_loss": "full_valid_loss",
        "valid_mean_token_accuracy": "full_valid_mean_token_accuracy",
    }
    steps: dict[int, dict[str, Any]] = {}
    for record in read_lines(directory.metrics_file):
        steps.setdefault(record["step"], {}).update(record)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for step in sorted(steps):
        writer.writerow(steps[step].get(key, "") for key in columns.values())
    return text.getvalue()
