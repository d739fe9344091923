"""The queue with a runner in the test's hand: every way from queued to an end, and what nobody foresaw."""

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from server.jobs import queue as module
from server.jobs.placement import Placement
from server.jobs.queue import MAX_STARTS, JobQueue
from server.metrics import Metrics
from server.state.jobs import JobRow, Jobs
from server.state.status import ENDED, Status
from tests.server.jobs.conftest import Parts
from training.directory import JobDirectory
from training.job import Failure, Result

pytestmark = pytest.mark.anyio


class ScriptedRunner:
    """Follows `Runner`: each start of a trainer calls `work`, which writes into the job's directory, or waits."""

    def __init__(self, work: Callable[[JobDirectory], object] | None) -> None:
        self.work = work
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.warmed = 0

    async def warm(self) -> None:
        self.warmed += 1

    async def start(self, directory: JobDirectory, environment: dict[str, str]) -> "asyncio.Future[int]":
        self.started.append(directory.path.name)
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self.work is not None:
            self.work(directory)
            ended.set_result(0)
        return ended

    async def stop(self, directory: JobDirectory) -> None:
        self.stopped.append(directory.path.name)

    async def close(self) -> None:
        self.warmed = -1


def fail(directory: JobDirectory) -> None:
    directory.finish(Failure(code="bad", message="no good"))


@asynccontextmanager
async def working(
    parts: Parts, runner: ScriptedRunner, most: int = 1, metrics: Metrics | None = None
) -> AsyncIterator[JobQueue]:
    metrics = metrics or Metrics()
    queue = JobQueue(parts.jobs, parts.preparation, parts.publishing, runner, Placement(), metrics, most)
    await queue.start()
    try:
        yield queue
    finally:
        await queue.stop()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)


def trained(parts: Parts, directory: JobDirectory) -> None:
    """What a trainer leaves."""
    registry = parts.catalog.registry
    directory.event("started", data={"hyperparameters": {"n_epochs": 3}})
    if not directory.adapter.exists():
        shutil.copytree(registry.store.path(registry.get("ft:tiny:o:a:v1").digest), directory.adapter)
    directory.finish(Result(trained_tokens=7, best_step=1, checkpoints=[], hyperparameters={"n_epochs": 3}))


async def test_a_result_becomes_a_model(parts: Parts) -> None:
    row = parts.queued()
    async with working(parts, ScriptedRunner(lambda directory: trained(parts, directory))):
        await until(lambda: parts.jobs.get(row.id).status == Status.SUCCEEDED)
    ended = parts.jobs.get(row.id)
    assert (ended.fine_tuned_model, ended.trained_tokens) == ("ft:tiny:o::r", 7)
    assert ended.hyperparameters == {"n_epochs": 3}
    assert parts.catalog.get("ft:tiny:o::r").owned_by == "o"
    assert parts.files.get(ended.result_file or "").purpose == "fine-tune-results"


async def test_jobs_run_oldest_first_as_many_as_may(parts: Parts) -> None:
    runner = ScriptedRunner(None)
    jobs = [parts.queued(job_id=f"ftjob-{number}").id for number in range(3)]
    async with working(parts, runner, most=2) as queue:
        await until(lambda: len(runner.started) == 2)
        assert sorted(runner.started) == jobs[:2]
        assert [parts.jobs.get(job).status for job in jobs] == [Status.VALIDATING, Status.VALIDATING, Status.QUEUED]
        await queue.cancel(jobs[0])
        await until(lambda: len(runner.started) == 3)
        assert runner.stopped == [jobs[0]]
        assert parts.jobs.get(jobs[0]).status == Status.CANCELLED


async def test_what_the_trainer_says_of_its_failure_is_the_jobs_error(parts: Parts) -> None:
    row = parts.queued()
    async with working(parts, ScriptedRunner(fail)):
        await until(lambda: parts.jobs.get(row.id).status == Status.FAILED)
    assert parts.jobs.get(row.id).error == {"code": "bad", "message": "no good", "param": None}
    assert parts.jobs.directory(row.id).events()[-1]["message"] == "The job failed: no good"


async def test_what_went_away_while_a_job_waited_is_its_error(parts: Parts) -> None:
    row = parts.queued()
    parts.files.delete(row.training_file)
    runner = ScriptedRunner(fail)
    async with working(parts, runner):
        await until(lambda: parts.jobs.get(row.id).status == Status.FAILED)
    error = parts.jobs.get(row.id).error
    assert error is not None
    assert (error["code"], error["param"]) == ("invalid_training_file", "training_file")
    assert runner.started == []


async def test_a_trainer_that_only_dies_is_given_up(parts: Parts) -> None:
    row = parts.queued()
    runner = ScriptedRunner(lambda directory: None)
    async with working(parts, runner):
        await until(lambda: parts.jobs.get(row.id).status == Status.FAILED)
    assert len(runner.started) == MAX_STARTS


async def test_a_trainer_that_gets_on_may_die_more_often(parts: Parts) -> None:
    row = parts.queued()

    def train(directory: JobDirectory) -> None:
        steps = len(runner.started)
        (directory.checkpoints / f"checkpoint-{steps}").mkdir(parents=True)
        if steps > 2 * MAX_STARTS:
            fail(directory)

    runner = ScriptedRunner(train)
    async with working(parts, runner):
        await until(lambda: parts.jobs.get(row.id).status == Status.FAILED)
    assert len(runner.started) == 2 * MAX_STARTS + 1


async def test_a_job_that_ran_when_the_server_died_goes_on(parts: Parts) -> None:
    row = parts.queued()
    assert parts.jobs.advance(row.id, Status.RUNNING)
    runner = ScriptedRunner(fail)
    async with working(parts, runner):
        await until(lambda: parts.jobs.get(row.id).status == Status.FAILED)
    assert runner.started == [row.id]


async def test_a_job_paused_at_its_first_breath_does_not_start(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row says that it runs, and there is no task yet that a pause could cancel."""
    row = parts.queued()
    advance = parts.jobs.advance

    def slow(job_id: str, status: Status, **fields: Any) -> bool:
        done = advance(job_id, status, **fields)
        if status == Status.VALIDATING:
            asyncio.run_coroutine_threadsafe(queue.pause(job_id), loop).result()
        return done

    monkeypatch.setattr(parts.jobs, "advance", slow)
    loop, runner, metrics = asyncio.get_running_loop(), ScriptedRunner(fail), Metrics()
    queue = JobQueue(parts.jobs, parts.preparation, parts.publishing, runner, Placement(), metrics, 1)
    await queue.start()
    await until(lambda: parts.jobs.get(row.id).status == Status.PAUSED)
    await until(lambda: not queue._running)  # pyright: ignore[reportPrivateUsage]
    assert runner.started == []
    assert metrics.registry.get_sample_value("tuneport_jobs_total", {"status": "paused"}) is None, "it has not ended"
    monkeypatch.undo()  # before it is taken up again
    await queue.resume(row.id)
    await until(lambda: parts.jobs.get(row.id).status == Status.FAILED)
    await queue.stop()


async def test_a_paused_job_is_not_woken_by_its_trainers_progress(parts: Parts) -> None:
    row = parts.queued()
    runner = ScriptedRunner(None)
    async with working(parts, runner) as queue:
        await until(lambda: runner.started == [row.id])
        directory = parts.jobs.directory(row.id)
        parts.jobs.pause(row.id)
        directory.event("started", data={"hyperparameters": {"n_epochs": 3}})
        await asyncio.sleep(0.1)
        assert parts.jobs.get(row.id).status == Status.PAUSED
        await queue.cancel(row.id)


FAULTS = [
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EAGAIN, "Resource temporarily unavailable"),
    OperationalError("", None, Exception("database is locked")),
]
COLLABORATORS = [
    ("jobs", "with_status"),
    ("jobs", "advance"),
    ("jobs", "get"),
    ("preparation", "prepare"),
    ("runner", "start"),
    ("publishing", "publish"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=["descriptors", "disk", "fork", "database"])
@pytest.mark.parametrize(("who", "method"), COLLABORATORS)
async def test_what_passes_costs_no_job(
    who: str, method: str, fault: Exception, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each collaborator fails three times, one after the other; all jobs come to their own end. It shows in metrics."""
    metrics, runner = Metrics(), ScriptedRunner(lambda directory: trained(parts, directory))
    owner = runner if who == "runner" else getattr(parts, who)
    works, left = getattr(owner, method), [fault] * 3

    def fails(*arguments: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return works(*arguments, **named)

    async with working(parts, runner, metrics=metrics) as queue:
        jobs = [parts.queued(job_id=f"ftjob-{number}").id for number in range(2)]
        monkeypatch.setattr(owner, method, fails)
        queue.wake()
        await until(lambda: not left and all(parts.status(job) in ENDED for job in jobs))
    assert [parts.status(job) for job in jobs] == [Status.SUCCEEDED] * 2
    assert metrics.registry.get_sample_value("tuneport_queue_failures_total", {"queue": "jobs"}) == 3


async def test_what_does_not_pass_fails_the_job_and_not_the_next(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [parts.queued(job_id=f"ftjob-{number}").id for number in range(2)]
    prepare = parts.preparation.prepare

    def fails(row: JobRow) -> JobDirectory:
        if row.id == jobs[0]:
            raise PermissionError(errno.EACCES, "Permission denied")
        return prepare(row)

    monkeypatch.setattr(parts.preparation, "prepare", fails)
    async with working(parts, ScriptedRunner(lambda directory: trained(parts, directory))):
        await until(lambda: parts.status(jobs[1]) in ENDED)
    assert [parts.status(job) for job in jobs] == [Status.FAILED, Status.SUCCEEDED]
    error = parts.jobs.get(jobs[0]).error
    assert error is not None
    assert error["message"] == "the server could not run the job: PermissionError"


async def test_a_job_that_is_given_up_has_no_trainer_that_goes_on(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = parts.queued()
    runner = ScriptedRunner(None)
    advance = parts.jobs.advance

    def fails(job_id: str, status: Status, **fields: Any) -> bool:
        if status == Status.RUNNING:
            raise ValueError("nobody foresaw this")
        return advance(job_id, status, **fields)

    monkeypatch.setattr(parts.jobs, "advance", fails)
    async with working(parts, runner):
        await until(lambda: runner.started == [row.id])
        parts.jobs.directory(row.id).event("started", data={"hyperparameters": {"n_epochs": 3}})
        await until(lambda: parts.status(row.id) == Status.FAILED)
        assert runner.stopped == [row.id]


class Faulty(Jobs):
    """Fails once in a way of its own."""

    looked = 0

    def with_status(self, *statuses: Status) -> list[JobRow]:
        self.looked += 1
        if self.looked == 2:
            raise RuntimeError("nobody foresaw this")
        return super().with_status(*statuses)


async def test_the_queue_goes_on(database: Engine, tmp_path: Path) -> None:
    rows = Faulty(database, tmp_path / "jobs")
    unused: Any = None
    queue = JobQueue(rows, unused, unused, ScriptedRunner(None), Placement(), Metrics(), 1)
    await queue.start()
    await until(lambda: rows.looked >= 3)
    await queue.stop()
