"""Keeps the engine running: starts it, restarts it with its adapters when it dies, and gives up after MAX_FAILURES."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Literal

import tenacity

from server.errors import EngineUnavailable, ServerError
from server.inference.catalog import Catalog
from server.inference.engine import Engine
from server.metrics import Metrics

logger = logging.getLogger(__name__)

STABLE_SECONDS = 300.0  # an engine that ran this long resets the count of failures
MAX_FAILURES = 5
BACKOFF = tenacity.wait_exponential(multiplier=1, max=60)  # 1, 2, 4, 8 seconds

Status = Literal["starting", "ready", "restarting", "failed"]


class Supervisor:
    """Runs the engine as long as the server runs; `/ready` shows `status`."""

    def __init__(
        self, engine: Engine, catalog: Catalog, metrics: Metrics, on_ready: Callable[[], object] = lambda: None
    ) -> None:
        """Make one; `on_ready` is called whenever the engine has started."""
        self.status: Status = "starting"
        self._engine = engine
        self._catalog = catalog
        self._metrics = metrics
        self._on_ready = on_ready
        self._began = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the engine, in the background."""
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Stop the engine."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._engine.stop()

    async def _keep(self) -> None:
        try:
            await self._start()
        except Exception as error:
            told = isinstance(error, ServerError)  # a message for the operator; a traceback would not help
            logger.error("the engine did not start: %s; the server stops", error, exc_info=None if told else error)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        try:
            while True:
                async for attempt in tenacity.AsyncRetrying(
                    stop=tenacity.stop_after_attempt(MAX_FAILURES), wait=BACKOFF, reraise=True
                ):
                    with attempt:
                        await self._live()
        except Exception:
            self.status = "failed"
            logger.exception(
                "the engine failed %d times in a row; find the cause, then restart the server", MAX_FAILURES
            )

    async def _live(self) -> None:
        """Run the engine until it dies.

        Raises:
            EngineUnavailable: it died before STABLE_SECONDS.
        """
        if self.status != "ready":
            await self._start()
        restoring = asyncio.create_task(self._catalog.restore())
        await self._engine.died()
        self.status = "restarting"
        restoring.cancel()
        self._catalog.reset()
        self._metrics.engine_deaths.inc()
        logger.error("the engine died; its requests end with 503, and it is started again")
        if time.monotonic() - self._began < STABLE_SECONDS:
            raise EngineUnavailable("the engine died soon after its start")

    async def _start(self) -> None:
        self._began = time.monotonic()
        await self._engine.start()
        self.status = "ready"
        self._on_ready()
        logger.info("the engine is ready after %.0f s", time.monotonic() - self._began)
