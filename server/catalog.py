"""Which models can be called: the base, and every registered adapter, loaded on its first request.

One load an adapter, shared by all who wait for it. The engine holds at most `max_resident` adapters; we evict the least
recently used idle one ourselves, for vLLM reads an adapter that it evicted by itself again within a model step, and its
engine dies if the files are gone by then.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adapters.errors import AdapterNotFound
from adapters.manifest import Manifest
from adapters.registry import Adapter, Registry
from server.generation import Engine
from server.http.metrics import Metrics

State = Literal["registered", "loading", "ready"]


@dataclass(frozen=True)
class Model:
    """A model to call; `adapter` is None for the base, `created_at` in Unix seconds."""

    name: str
    created_at: int
    owned_by: str
    adapter: Adapter | None
    manifest: Manifest


class _Resident:
    """An adapter in the engine, or on its way there."""

    def __init__(self, load: asyncio.Task[None]) -> None:
        self.load = load
        self.users = 0


class Catalog:
    """Models by name, and the adapters resident in the engine."""

    def __init__(self, engine: Engine, registry: Registry, metrics: Metrics, max_resident: int) -> None:
        self.registry = registry
        self._engine = engine
        self._metrics = metrics
        self._max_resident = max_resident
        self._models: dict[str, Model] = {}
        self._residents: OrderedDict[str, _Resident] = OrderedDict()
        self._removing: set[str] = set()
        self._released = asyncio.Condition()
        self.base = Model(registry.base.name, int(registry.base.path.stat().st_mtime), "tuneport", None, Manifest())

    def list(self) -> list[Model]:
        """The base, then every adapter, oldest first."""
        return [self.base, *(self._model(adapter) for adapter in self.registry.list())]

    def get(self, name: str) -> Model:
        """The model of that name.

        Raises:
            AdapterNotFound: there is none, or it is being removed.
        """
        if name == self.base.name:
            return self.base
        if name in self._removing:
            raise AdapterNotFound(name)
        return self._models.get(name) or self._model(self.registry.get(name))

    def state(self, adapter: Adapter) -> State:
        """Where the adapter is: on disk only, on its way into the engine, or in it."""
        resident = self._residents.get(adapter.digest)
        if resident is None:
            return "registered"
        return "ready" if resident.load.done() else "loading"

    def register(self, name: str, source: Path, owned_by: str) -> Model:
        """Validate, store and name an adapter's files; see `Registry.register`."""
        return self._model(self.registry.register(name, source, owned_by=owned_by))

    @contextlib.asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Model]:
        """Hold a model for one request: loaded, and neither evicted nor removed until the end.

        Raises:
            AdapterNotFound: there is no such model.
            AdapterLoadFailed, EngineUnavailable: the engine did not take it.
        """
        model = self.get(name) if name in self._models else await asyncio.to_thread(self.get, name)
        if model.adapter is None:
            yield model
            return
        digest = model.adapter.digest
        resident = await self._acquire(model.adapter)
        try:
            await asyncio.shield(resident.load)
            yield model
        finally:
            resident.users -= 1
            if _failed(resident.load) and self._residents.get(digest) is resident:
                del self._residents[digest]
                self._models.pop(name, None)  # ask the registry again: it may have been removed meanwhile
            async with self._released:
                self._released.notify_all()

    async def remove(self, name: str) -> None:
        """Remove an adapter: no new requests, then the running ones end, then engine, registry and files forget it.

        Raises:
            AdapterNotFound: there is none of that name.
        """
        adapter = await asyncio.to_thread(self.registry.get, name)
        if name in self._removing:
            raise AdapterNotFound(name)
        self._removing.add(name)
        try:
            shared = any(
                other.digest == adapter.digest and other.name != name
                for other in await asyncio.to_thread(self.registry.list)
            )
            if not shared:
                await self._drain(adapter.digest)
            await asyncio.to_thread(self.registry.remove, name)
            self._models.pop(name, None)
            self._metrics.forget(name)
        finally:
            self._removing.discard(name)

    async def _acquire(self, adapter: Adapter) -> _Resident:
        while (resident := self._residents.get(adapter.digest)) is None:
            if len(self._residents) >= self._max_resident:
                await self._make_room()
            else:
                self._residents[adapter.digest] = _Resident(asyncio.create_task(self._load(adapter)))
        resident.users += 1
        self._residents.move_to_end(adapter.digest)
        return resident

    async def _make_room(self) -> None:
        """Free the least recently used idle adapter; wait for one if all are in use."""
        async with self._released:
            await self._released.wait_for(lambda: len(self._residents) < self._max_resident or self._idle() is not None)
        digest = self._idle()
        if len(self._residents) >= self._max_resident and digest is not None:
            del self._residents[digest]
            await self._engine.unload(digest)

    def _idle(self) -> str | None:
        return next((d for d, resident in self._residents.items() if not resident.users and resident.load.done()), None)

    async def _drain(self, digest: str) -> None:
        def idle() -> bool:
            resident = self._residents.get(digest)
            return resident is None or (not resident.users and resident.load.done())

        async with self._released:
            await self._released.wait_for(idle)
            self._residents.pop(digest, None)
        await self._engine.unload(digest)

    async def _load(self, adapter: Adapter) -> None:
        started = time.perf_counter()
        try:
            await self._engine.load(adapter.digest, adapter.path)
        except BaseException:
            self._metrics.loads.labels(result="failed").inc()
            raise
        finally:
            async with self._released:
                self._released.notify_all()
        self._metrics.loads.labels(result="loaded").inc()
        self._metrics.load_seconds.observe(time.perf_counter() - started)

    def _model(self, adapter: Adapter) -> Model:
        known = self._models.get(adapter.name)
        if known is None or known.adapter != adapter:
            known = self._models[adapter.name] = Model(
                adapter.name, adapter.created_at, adapter.owned_by, adapter, Manifest.read(adapter.path)
            )
        return known


def _failed(load: asyncio.Task[None]) -> bool:
    return load.done() and (load.cancelled() or load.exception() is not None)
