"""The durable queue: starts trainers as processes of their own, follows them, and registers what they made.

The state is the job's row and its directory, so nothing is lost with this process: at start every job that was running
is followed again where its trainer still runs, started again from its last checkpoint where it does not, and finished
where only the registration was missing.
"""

import asyncio
import csv
import io
import logging
import shutil
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from adapters import names
from adapters.base import BaseModel
from adapters.errors import AdapterError, AdapterNotFound
from server.errors import InvalidRequest, NotFound
from server.inference.catalog import Catalog
from server.jobs.processes import Trainers
from server.metrics import Metrics
from server.state.files import Files
from server.state.jobs import JobRow, Jobs
from server.state.status import ACTIVE, Status
from training.directory import JobDirectory, read_lines
from training.graders.judge import KEY_VARIABLE, URL_VARIABLE, Judge
from training.job import GPU_SHARE_VARIABLE, KEPT_CHECKPOINTS, Failure, Result, TrainingJob

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
RETRY_SECONDS = 60.0
MAX_STARTS = 8  # without a new checkpoint between them; with 4, kills 8 s apart on average ended two of twelve jobs


class JobQueue:
    """Runs queued jobs, `max_running` at a time, oldest first."""

    def __init__(
        self,
        jobs: Jobs,
        files: Files,
        catalog: Catalog,
        base: BaseModel,
        metrics: Metrics,
        trainers: Trainers,
        *,
        organization: str,
        max_running: int,
        judge: Judge | None = None,
        devices: Sequence[str] = (),
        gpu_memory_share: float = 1.0,
    ) -> None:
        """Make a queue; nothing runs yet.

        Args:
            judge: of score_model graders.
            devices: CUDA devices, one for each running job; none: trainers see what the server sees.
            gpu_memory_share: of a GPU's memory, what serving leaves to a trainer.
        """
        self._jobs = jobs
        self._files = files
        self._catalog = catalog
        self._base = base
        self._metrics = metrics
        self._trainers = trainers
        self._organization = organization
        self._max_running = min(max_running, len(devices)) if devices else max_running
        self._judge = judge
        self._devices = list(devices)
        self._placed: dict[str, str] = {}
        self._gpu_memory_share = gpu_memory_share
        self._running: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._warming = False

    async def start(self) -> None:
        """Take up what a former process left, then the queue."""
        for row in await asyncio.to_thread(self._jobs.with_status, *ACTIVE):
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
        await asyncio.gather(*(self._trainers.stop(self._jobs.directory(job_id)) for job_id in running))
        await self._trainers.close()

    def warm(self) -> None:
        """From now on have a trainer wait for the next job, whenever none runs; call it once the engine is up."""
        self._warming = True
        self._changed.set()

    def wake(self) -> None:
        """Look at the queue now; call it after a job was created."""
        self._changed.set()

    async def cancel(self, job_id: str) -> JobRow:
        """Cancel a job, waiting or running; its trainer is gone within seconds.

        Raises:
            NotFound, InvalidRequest: see `Jobs.cancel`.
        """
        row = await asyncio.to_thread(self._jobs.cancel, job_id)
        self._metrics.jobs.labels(status=row.status).inc()
        directory = self._jobs.directory(job_id)
        if directory.path.is_dir():
            directory.event("The job was cancelled", level="warn")
            # A trainer that is only just starting finds the outcome before it trains.
            directory.finish(Failure(code="cancelled", message="the job was cancelled"))
        await self._stop_trainer(job_id)
        return row

    async def pause(self, job_id: str) -> JobRow:
        """Stop a job, waiting or running; its trainer saves a checkpoint first, where a step takes less than the grace.

        Raises:
            NotFound, InvalidRequest: see `Jobs.pause`.
        """
        row = await asyncio.to_thread(self._jobs.pause, job_id)
        await self._stop_trainer(job_id)
        directory = self._jobs.directory(job_id)
        if directory.path.is_dir():
            directory.event("The job was paused")
        return row

    async def resume(self, job_id: str) -> JobRow:
        """Queue a paused job again.

        Raises:
            NotFound, InvalidRequest: see `Jobs.resume`.
        """
        row = await asyncio.to_thread(self._jobs.resume, job_id)
        directory = self._jobs.directory(job_id)
        if directory.path.is_dir():
            directory.event("The job was resumed")
        self.wake()
        return row

    async def _stop_trainer(self, job_id: str) -> None:
        task = self._running.get(job_id)
        if task is not None:
            task.cancel()
            await self._trainers.stop(self._jobs.directory(job_id))

    async def _work(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self._start_waiting()
            except Exception:  # no room for a row or a process, for one: the jobs wait, and are not lost
                logger.exception("the queue of jobs could not go on; trying again in %.0f s", RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await self._changed.wait()

    async def _start_waiting(self) -> None:
        waiting = await asyncio.to_thread(self._jobs.with_status, Status.QUEUED)
        for row in waiting[: max(0, self._max_running - len(self._running))]:
            if self._jobs.advance(row.id, Status.VALIDATING, only_from=(Status.QUEUED,)):
                self._spawn(row.id, self._run(row))
        if not waiting and not self._running and self._warming:
            await self._trainers.warm()

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
            self._fail(row, outcome)
        self._metrics.jobs.labels(status=self._jobs.get(row.id).status).inc()

    def _fail(self, row: JobRow, failure: Failure) -> None:
        """End a job; its row counts, so a directory that was never made or cannot be written does not keep it."""
        directory = self._jobs.directory(row.id)
        try:
            directory.path.mkdir(parents=True, exist_ok=True)
            directory.event(f"The job failed: {failure.message}", level="error")
        except OSError:
            logger.exception("the event that job %s failed could not be written", row.id)
        self._jobs.advance(row.id, Status.FAILED, error=failure.model_dump())

    async def _train(self, row: JobRow) -> Result | Failure:
        try:
            directory = await asyncio.to_thread(self._prepare, row)
        except InvalidRequest as error:
            return Failure(code=f"invalid_{error.param}", message=str(error), param=error.param)
        starts, saved = 0, 0
        while (outcome := directory.outcome()) is None:
            if directory.runner() is None:
                if not self._place(row.id):
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                if (newest := directory.newest_checkpoint()) > saved:
                    starts, saved = 0, newest
                if starts == MAX_STARTS:
                    return Failure(
                        code="server_error", message=f"the trainer died {MAX_STARTS} times in a row; see trainer.log"
                    )
                starts += 1
                if starts > 1 or saved:
                    directory.event("Going on from the last checkpoint", level="warn")
                trainer = await self._trainers.start(directory, self._environment(row))
                while not trainer.done():
                    await asyncio.wait({trainer}, timeout=POLL_SECONDS)
                    self._note_progress(row, directory)
            else:  # a trainer that a former server process started
                await asyncio.sleep(POLL_SECONDS)
                self._note_progress(row, directory)
        return outcome

    def _prepare(self, row: JobRow) -> JobDirectory:
        """The job's directory, with its description.

        Raises:
            InvalidRequest: what the job needs went away while it waited.
        """
        parent = self._copy(row, row.parent, "parent") if row.parent else None
        incumbent, incumbent_name = parent, row.parent
        if (served := self._served(row.gate.get("alias"))) is not None and served != row.parent:
            incumbent, incumbent_name = self._copy(row, served, "incumbent"), served
        job = TrainingJob(
            id=row.id,
            base_model=self._base.name,
            base_path=self._base.path,
            parent=parent,
            incumbent=incumbent,
            incumbent_name=incumbent_name,
            training_file=self._path(row.training_file, "training_file"),
            validation_file=self._path(row.validation_file, "validation_file") if row.validation_file else None,
            retention_file=self._path(row.retention_file, "retention_file") if row.retention_file else None,
            method=row.method,  # pyright: ignore[reportArgumentType] (pydantic reads it)
            gate=row.gate,  # pyright: ignore[reportArgumentType]
            seed=row.seed,
            accept_findings=row.accept_findings,
            wandb=row.integrations[0]["wandb"] if row.integrations else None,
        )
        return JobDirectory.create(self._jobs.directory(row.id).path.absolute(), job)

    def _served(self, alias: str | None) -> str | None:
        """The version that answers most of an alias's requests; None where there is no such alias yet."""
        if alias is None or not self._catalog.is_alias(alias):
            return None
        weights = self._catalog.registry.alias(alias).weights
        return max(weights, key=lambda version: weights[version])

    def _copy(self, row: JobRow, name: str, folder: str) -> Path:
        """A model that the job needs, in the job's own directory: it may be removed meanwhile."""
        target = self._jobs.directory(row.id).path.absolute() / folder
        if not target.exists():
            registry = self._catalog.registry
            try:
                digest = registry.get(name).digest
            except AdapterNotFound:
                raise InvalidRequest(
                    f"the model {name}, which the job starts from or has to beat, was removed while it waited", "model"
                ) from None
            partial = target.with_name(f".{folder}")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(registry.store.path(digest), partial)
            partial.rename(target)
        return target

    def _path(self, file_id: str, field: str) -> Path:
        try:
            return self._files.get(file_id).path.absolute()
        except NotFound:
            raise InvalidRequest(f"the file {file_id} expired while the job waited; upload it again", field) from None

    def _environment(self, row: JobRow) -> dict[str, str]:
        """What a trainer finds in its environment: secrets, which no file of the job may hold, and its device."""
        environment = {GPU_SHARE_VARIABLE: str(self._gpu_memory_share)}
        if self._judge is not None:
            environment |= {URL_VARIABLE: self._judge.url, KEY_VARIABLE: self._judge.key}
        if self._devices:
            environment["CUDA_VISIBLE_DEVICES"] = self._placed[row.id]
        return environment

    def _place(self, job_id: str) -> bool:
        """Give a job a device; whether there is one for it: after a restart more jobs may run than there are."""
        taken = {self._placed.get(other) for other in self._running if other != job_id}
        free = [device for device in self._devices if device not in taken]
        if free:
            self._placed[job_id] = free[0]
        return bool(free) or not self._devices

    def _note_progress(self, row: JobRow, directory: JobDirectory) -> None:
        """Once the trainer has accepted the files: the job runs, and `auto` has become numbers."""
        if row.status == Status.RUNNING:
            return
        for event in directory.events():
            if "hyperparameters" in event["data"]:
                row.status = Status.RUNNING
                self._jobs.advance(row.id, Status.RUNNING, hyperparameters=event["data"]["hyperparameters"])

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
        self._files.create(table, "step_metrics.csv", "fine-tune-results", file_id=file_id)
        if self._jobs.advance(
            row.id,
            Status.SUCCEEDED,
            fine_tuned_model=row.result_name,
            trained_tokens=result.trained_tokens,
            result_file=file_id,
            hyperparameters=result.hyperparameters,
        ):
            self._promote(row, result, directory)
            directory.event(f"New fine-tuned model created: {row.result_name}")
            directory.event("The job has successfully completed")
        directory.drop_checkpoints()
        return None

    def _promote(self, row: JobRow, result: Result, directory: JobDirectory) -> None:
        """Move the gate's alias to the new model where it passed; else say that it stays."""
        verdict = result.verdict
        if verdict is None or verdict.alias is None:
            return
        if not verdict.passed:
            directory.event(f"{verdict.alias} stays where it is: the gate is not passed", level="warn")
            return
        judged, serves = directory.job().incumbent_name, self._served(verdict.alias)
        if serves is not None and serves != judged:
            directory.event(
                f"{verdict.alias} stays where it is: it serves {serves} by now, and the job was judged against "
                f"{judged or 'the base'}",
                level="warn",
            )
            return
        try:
            self._catalog.set_alias(verdict.alias, {row.result_name: 1}, self._organization)
        except AdapterError as error:
            directory.event(f"{verdict.alias} could not be moved: {error}", level="error")
        else:
            directory.event(f"The gate is passed: {verdict.alias} is now {row.result_name}")


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
