"""The composition root: `create_app(settings)` puts the parts together; its lifespan starts and stops them."""

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from fastapi import FastAPI

from adapters.base import BaseModel
from adapters.database import connect
from adapters.registry import Registry
from adapters.store import Store
from adapters.validate import Limits
from server.admin import adapters as admin_adapters
from server.admin import keys as admin_keys
from server.catalog import Catalog
from server.engine import EngineOptions, VllmEngine
from server.http import errors, operations
from server.http.metrics import Metrics
from server.http.middleware import Envelope
from server.jobs import JobQueue
from server.openai import chat, files, fine_tuning, models
from server.services import Services
from server.settings import Settings
from server.state.files import Files
from server.state.jobs import Jobs
from server.state.keys import Keys
from server.state.tables import migrate

logger = logging.getLogger(__name__)

ROUTERS = (chat, models, files, fine_tuning, admin_adapters, admin_keys, operations)


class DataFolderBusy(RuntimeError):
    """Another server works on the data folder."""


def create_app(settings: Settings, base: BaseModel) -> FastAPI:
    """The application, nothing started yet.

    Args:
        base: the base model, on local disk (cli.py fetches and describes it).
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with _sole_owner(settings.data_dir):
            parts = _build(settings, base)
            app.state.services = parts
            starting = asyncio.create_task(_start_engine(parts))
            await parts.queue.start()
            yield
            starting.cancel()
            await parts.queue.stop()
            await parts.engine.stop()

    app = FastAPI(
        title="Tuneport", docs_url=None, redoc_url=None, openapi_url=None, strict_content_type=False, lifespan=lifespan
    )
    app.add_middleware(
        Envelope,
        max_body_bytes=settings.max_body_bytes,
        uploads={"/v1/files": settings.max_file_bytes, "/admin/adapters": settings.max_adapter_bytes},
    )
    errors.install(app)
    for module in ROUTERS:
        app.include_router(module.router)
    return app


def _build(settings: Settings, base: BaseModel) -> Services:
    data = settings.data_dir.absolute()
    database = connect(settings.database())
    migrate(database)
    limits = Limits(settings.max_lora_rank, settings.max_adapter_bytes)
    registry = Registry(database, Store(data / "adapters"), base, limits)
    options = EngineOptions(
        max_loras=settings.max_loras,
        max_cpu_loras=settings.max_cpu_loras,
        max_lora_rank=settings.max_lora_rank,
        max_model_len=settings.max_model_len,
        kv_cache_bytes=settings.kv_cache(),
        gpu_memory_utilization=settings.gpu_memory_utilization,
    )
    metrics = Metrics()
    engine = VllmEngine(base, options)
    catalog = Catalog(engine, registry, metrics, settings.max_cpu_loras)
    stored = Files(database, data / "files", settings.max_file_bytes)
    jobs = Jobs(database, data / "jobs")
    queue = JobQueue(
        jobs,
        stored,
        catalog,
        base,
        metrics,
        organization=settings.organization,
        max_running=settings.max_running_jobs,
    )
    return Services(settings, engine, catalog, Keys(database), stored, jobs, queue, metrics)


async def _start_engine(parts: Services) -> None:
    started = time.perf_counter()
    try:
        await parts.engine.start()
    except Exception:
        logger.exception("the engine did not start; the server stops")
        os.kill(os.getpid(), 15)
        return
    logger.info("ready after %.0f s", time.perf_counter() - started)


@contextmanager
def _sole_owner(data: Path) -> Iterator[None]:
    """Hold the data folder's lock; a second server on it would undo the first one's work."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFolderBusy(f"another server works on {data}; stop it, or choose another --data-dir") from None
        yield
