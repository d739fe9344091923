"""The composition root: `create_app(settings, base, engine)` puts the parts together; its lifespan runs them."""

import asyncio
import fcntl
import logging
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from adapters.base import BaseModel
from adapters.database import connect
from adapters.files.validate import Limits
from adapters.registry import Registry
from adapters.store import Store
from server.admin import adapters as admin_adapters
from server.admin import aliases as admin_aliases
from server.admin import figures, probes
from server.admin import keys as admin_keys
from server.batches.lines import Limits as BatchLimits
from server.batches.runner import BatchRunner
from server.errors import DataFolderBusy
from server.http import entry, statuses
from server.http.identity import ADMINISTRATOR, CALLER
from server.http.limits import RateLimits
from server.http.streaming import Replies
from server.inference.answering import Answering
from server.inference.catalog import Catalog
from server.inference.embedder import Embedder
from server.inference.engine import Engine
from server.inference.residency import Residency
from server.inference.supervisor import Supervisor
from server.jobs.creation import Creation
from server.jobs.placement import Placement
from server.jobs.preparation import Preparation
from server.jobs.processes import Trainers
from server.jobs.publishing import Publishing
from server.jobs.queue import JobQueue
from server.metrics import Metrics
from server.openai import batches as openai_batches
from server.openai import completions, embeddings, files, models, moderations, uploads
from server.openai.chat import routes as chat
from server.openai.fine_tuning import graders, permissions
from server.openai.fine_tuning import jobs as fine_tuning
from server.openai.responses import routes as responses
from server.services import Services
from server.settings import Settings
from server.state.batches import Batches
from server.state.files import Files
from server.state.jobs import Jobs
from server.state.keys import Keys
from server.state.permissions import Permissions
from server.state.responses import Responses
from server.state.tables import migrate
from server.state.uploads import Uploads
from training.graders.judge import KEY_VARIABLE, URL_VARIABLE
from training.job import GPU_SHARE_VARIABLE

logger = logging.getLogger(__name__)

TIDY_SECONDS = 600.0
REGISTRATIONS = 2  # at a time: each needs disk and memory for a copy of its files
GRADERS = 4  # trial runs at a time, on separate threads: a judge may take minutes, Python code seconds
FOR_EVERY_KEY = (
    *(chat, completions, responses, embeddings, moderations, openai_batches),
    *(models, files, uploads, fine_tuning, graders, permissions),
)
FOR_ADMIN_KEYS = (admin_aliases, admin_adapters, admin_keys)


def create_app(settings: Settings, base: BaseModel, engine: Engine) -> FastAPI:
    """The application; its lifespan starts and stops everything.

    Args:
        base: the base model, on local disk (server/cli/serving.py fetches and describes it).
        engine: serves the base and its adapters; started and stopped with the application.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with sole_owner(settings.data_dir):
            for left in settings.data_dir.glob(f"{admin_adapters.UPLOAD}*"):  # left by a crash
                shutil.rmtree(left, ignore_errors=True)
            parts = _build(settings, base, engine)
            app.state.services = parts
            parts.supervisor.start()
            await parts.queue.start()
            parts.batch_runner.start(app)
            async with _meanwhile(_tidy(parts), parts.metrics.watch_loop(), parts.replies.watch()):
                yield
            await parts.batch_runner.stop()
            await parts.queue.stop()
            await parts.supervisor.stop()
            parts.embedder.stop()

    app = FastAPI(
        title="Tuneport", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=lifespan
    )
    statuses.install(app)
    entry.install(app, settings)
    for modules, identity in ((FOR_EVERY_KEY, CALLER), (FOR_ADMIN_KEYS, ADMINISTRATOR)):
        for module in modules:
            app.include_router(module.router, dependencies=[identity])
    app.include_router(probes.router)
    app.include_router(figures.router, dependencies=[] if settings.open_metrics else [ADMINISTRATOR])
    return app


def _build(settings: Settings, base: BaseModel, engine: Engine) -> Services:
    data = settings.data_dir.absolute()
    database = connect(settings.database())
    migrate(database)
    limits = Limits(
        settings.max_lora_rank, settings.max_adapter_bytes, settings.max_adapters, settings.max_full_models > 0
    )
    registry = Registry(database, Store(data / "adapters"), base, limits)
    metrics = Metrics()
    residency = Residency(engine, registry.store, metrics, slots=settings.max_loras, capacity=settings.max_cpu_loras)
    full = None
    if count := settings.max_full_models:
        full = Residency(engine, registry.store, metrics, slots=count, capacity=count, kind="full model")
        engine.on_loss(full.lost)
    catalog = Catalog(registry, residency, full, metrics)
    stored = Files(
        database,
        data / "files",
        settings.max_file_bytes,
        max_files=settings.max_files,
        max_stored_bytes=settings.max_stored_bytes,
    )
    jobs = Jobs(database, data / "jobs")
    batches = Batches(database, settings.max_waiting_batches)
    environment = {GPU_SHARE_VARIABLE: str(1 - settings.gpu_memory_utilization)}
    if judge := settings.judge():
        environment |= {URL_VARIABLE: judge.url, KEY_VARIABLE: judge.key}
    queue = JobQueue(
        jobs,
        Preparation(jobs, stored, catalog, base),
        Publishing(jobs, stored, catalog, settings.organization),
        Trainers(settings.warm_trainer, data / "spawner.log", environment),
        Placement(settings.training_devices),
        metrics,
        settings.max_running_jobs,
    )
    return Services(
        settings=settings,
        engine=engine,
        answering=Answering(engine, catalog, metrics),
        replies=Replies(settings.slow_reader_seconds),
        supervisor=Supervisor(engine, catalog, metrics, on_ready=queue.warm),
        catalog=catalog,
        keys=Keys(database),
        files=stored,
        uploads=Uploads(
            database, data / "uploads", stored, settings.max_file_bytes, max_open=settings.max_open_uploads
        ),
        permissions=Permissions(database),
        responses=Responses(database, settings.max_responses, settings.max_response_bytes, settings.max_body_bytes),
        batches=batches,
        batch_runner=BatchRunner(
            batches, stored, data / "batches", BatchLimits(settings.max_body_bytes, settings.max_body_items), metrics
        ),
        embedder=Embedder(settings.embedding_model),
        jobs=jobs,
        queue=queue,
        creation=Creation(
            jobs,
            stored,
            catalog,
            queue,
            settings.organization,
            full_models=settings.max_full_models > 0,
            max_waiting=settings.max_waiting_jobs,
            max_grader_bytes=settings.max_grader_bytes,
            judge=settings.judge(),
        ),
        metrics=metrics,
        limits=RateLimits(
            settings.requests_per_minute,
            settings.tokens_per_minute,
            {name: getattr(settings, name) for name in ("grader_runs_per_hour", "jobs_per_hour")},
            {
                "requests": settings.max_concurrent_requests,
                "uploads": settings.max_concurrent_uploads,
                "calls": settings.max_concurrent_calls,
                "graders": settings.max_concurrent_graders,
            },
        ),
        registrations=CapacityLimiter(REGISTRATIONS),
        graders=CapacityLimiter(GRADERS),
        creations=CapacityLimiter(1),  # two at once could both take the last place in the queue
    )


async def _tidy(parts: Services) -> None:
    """Delete what has expired, at start and every ten minutes."""
    while True:
        try:
            await asyncio.to_thread(parts.files.delete_expired, parts.needs_file)
            await asyncio.to_thread(parts.responses.delete_expired)
            await asyncio.to_thread(parts.jobs.delete_surplus, parts.settings.max_failed_jobs)
            await asyncio.to_thread(parts.uploads.delete_expired)
        except (OSError, SQLAlchemyError):
            logger.exception("what has expired could not be deleted; trying again later")
        await asyncio.sleep(TIDY_SECONDS)


@asynccontextmanager
async def _meanwhile(*chores: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run chores while the block runs."""
    tasks = [asyncio.create_task(chore) for chore in chores]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


@contextmanager
def sole_owner(data: Path) -> Iterator[None]:
    """Hold the data folder's lock, since two servers on one folder would damage each other's work.

    Raises:
        DataFolderBusy: another server holds it.
    """
    data.mkdir(parents=True, exist_ok=True)
    with (data / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFolderBusy(f"another server works on {data}; stop it, or choose another --data-dir") from None
        yield
