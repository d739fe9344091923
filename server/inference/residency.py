"""Decides which adapters the engine holds, and which requests may enter it.

The engine computes at most `slots` adapters at a time and keeps `capacity` in memory. We manage both, since an adapter
that vLLM evicts itself is loaded again within a model step, and vLLM dies if the files are gone by then; and its
scheduler lets requests for popular adapters overtake, without limit, a request that waits for a slot.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Literal

from adapters.errors import AdapterDamaged
from adapters.registry import Adapter
from adapters.store import Store
from server.errors import AdapterLoadFailed, InvalidRequest
from server.inference.engine import Engine
from server.metrics import Metrics

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.5  # how long others may overtake a request that waits for a slot

State = Literal["registered", "loading", "ready", "failed"]


class _Resident:
    """An adapter in the engine's memory, or on its way there."""

    def __init__(self, adapter: Adapter, load: asyncio.Task[None]) -> None:
        self.adapter = adapter
        self.load = load
        self.users = 0
        self.draining = False
        self.released = asyncio.Event()  # set when no request uses the adapter any more


class _Waiter:
    """A request that waits to enter the engine."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.turn: asyncio.Future[_Resident] = asyncio.get_running_loop().create_future()
        self.since = time.monotonic()


class Residency:
    """Loads, evicts, pins and drains adapters, and decides when each request enters the engine.

    Requests enter first come, first served, when their adapter has a slot or one is free. If the adapter has a slot
    already, its requests overtake those that wait for one, until the first of these has waited PATIENCE_SECONDS. When
    an adapter gets a slot, all its waiting requests enter.
    """

    def __init__(
        self, engine: Engine, store: Store, metrics: Metrics, *, slots: int, capacity: int, kind: str = "adapter"
    ) -> None:
        """Make one; `kind` labels its metrics."""
        self.max_pinned = capacity - slots  # a full batch of other adapters must always fit
        self._engine = engine
        self._store = store
        self._metrics = metrics
        self._slots = slots
        self._capacity = capacity
        self._residents: OrderedDict[str, _Resident] = OrderedDict()  # least recently used first
        self._waiting: list[_Waiter] = []
        self._pinned: set[str] = set()
        self._failures: dict[str, str] = {}
        self._lost: list[Adapter] = []
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._loading = asyncio.Lock()  # one adapter at a time: the engine computes nothing while it loads
        metrics.resident.labels(kind=kind).set_function(lambda: len(self._residents))
        metrics.waiting.labels(kind=kind).set_function(lambda: len(self._waiting))

    def state(self, digest: str) -> tuple[State, str | None]:
        """The adapter's state, and why its last load failed, if it did."""
        resident = self._residents.get(digest)
        if resident is not None:
            return ("ready" if resident.load.done() else "loading"), None
        failure = self._failures.get(digest)
        return ("registered", None) if failure is None else ("failed", failure)

    @contextlib.asynccontextmanager
    async def hold(self, adapter: Adapter) -> AsyncIterator[None]:
        """Wait until the request may enter and its adapter is loaded; it is not evicted or unloaded during the block.

        Raises:
            AdapterDamaged: its files are missing or changed.
            AdapterLoadFailed, EngineUnavailable: the engine did not take it.
        """
        waiter = _Waiter(adapter)
        self._waiting.append(waiter)
        self._admit()
        try:
            resident = await waiter.turn
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._admit()
            elif not waiter.turn.cancelled():  # it was admitted at the moment of the cancellation
                self._release(waiter.turn.result())
            raise
        try:
            await asyncio.shield(resident.load)
            yield
        finally:
            self._release(resident)

    async def unload(self, digest: str) -> None:
        """Let running requests end, then free the adapter; requests that arrive meanwhile load it again afterwards."""
        resident = self._residents.get(digest)
        if resident is None:
            return
        resident.draining = True
        try:
            while resident.users:
                resident.released.clear()
                await resident.released.wait()
            if self._residents.get(digest) is resident:
                await asyncio.shield(self._leave(digest))
        finally:
            resident.draining = False
            self._admit()

    def pin(self, digest: str) -> None:
        """Keep the adapter in memory, from its next load on.

        Raises:
            InvalidRequest: the limit is reached; one more would leave no room for a batch of other adapters.
        """
        if digest not in self._pinned and len(self._pinned) >= self.max_pinned:
            raise InvalidRequest(
                f"{len(self._pinned)} adapters are pinned and {self.max_pinned} may be (max_cpu_loras - max_loras); "
                "unpin another, or raise max_cpu_loras",
                "name",
            )
        self._pinned.add(digest)

    def unpin(self, digest: str) -> None:
        """Let the adapter be evicted again."""
        self._pinned.discard(digest)

    def reset(self) -> None:
        """Note that the engine died with its adapters; `restore` loads them again."""
        self._lost = [resident.adapter for resident in self._residents.values() if resident.load.done()]
        self._residents.clear()

    def lost(self, digest: str) -> None:
        """Note that the engine lost this adapter; the next request loads it again."""
        resident = self._residents.get(digest)
        if resident is not None and resident.load.done():
            del self._residents[digest]
            self._admit()

    async def restore(self, pinned: Sequence[Adapter] = ()) -> None:
        """Load a new engine's adapters: those that the last one held, in order of use, and the pinned ones.

        An adapter that fails to load is left out, and its state says why.
        """
        wanted = {adapter.digest: adapter for adapter in (*self._lost, *pinned)}
        for adapter in list(wanted.values())[-self._capacity :]:
            try:
                async with self.hold(adapter):
                    self._lost = [lost for lost in self._lost if lost.digest != adapter.digest]
            except (AdapterDamaged, AdapterLoadFailed):
                logger.exception("adapter %s was not loaded again", adapter.name)

    def _admit(self) -> None:
        active = {digest for digest, resident in self._residents.items() if resident.users}
        entering: set[str] = set()
        impatient = False
        now = time.monotonic()
        for waiter in list(self._waiting):
            digest = waiter.adapter.digest
            resident = self._residents.get(digest)
            if waiter.turn.done() or (resident is not None and resident.draining):
                continue
            if digest in active:
                enters = digest in entering or not impatient
            else:
                enters = len(active) < self._slots and not impatient
                impatient = impatient or (not enters and now - waiter.since > PATIENCE_SECONDS)
            if enters:
                if digest not in active:
                    active.add(digest)
                    entering.add(digest)
                if resident is None:
                    resident = self._start_load(waiter.adapter)
                resident.users += 1
                self._residents.move_to_end(digest)
                self._waiting.remove(waiter)
                waiter.turn.set_result(resident)

    def _start_load(self, adapter: Adapter) -> _Resident:
        while len(self._residents) >= self._capacity and (digest := self._idle()) is not None:
            self._leave(digest)
        load = asyncio.create_task(self._load(adapter))
        resident = self._residents[adapter.digest] = _Resident(adapter, load)

        def forget_failed(load: asyncio.Task[None]) -> None:
            failed = load.cancelled() or load.exception() is not None
            if failed and self._residents.get(adapter.digest) is resident:
                del self._residents[adapter.digest]
                self._admit()

        load.add_done_callback(forget_failed)
        return resident

    def _idle(self) -> str | None:
        """The least recently used adapter that may be evicted."""
        for digest, resident in self._residents.items():
            if not resident.users and not resident.draining and resident.load.done() and digest not in self._pinned:
                return digest
        return None

    def _release(self, resident: _Resident) -> None:
        resident.users -= 1
        if not resident.users:
            resident.released.set()
        self._admit()

    def _leave(self, digest: str) -> asyncio.Task[None]:
        """Free an adapter in the engine. Other loads need not wait: the engine runs both in the order sent."""
        del self._residents[digest]
        leaving = self._leaving[digest] = asyncio.create_task(self._engine.unload(digest))

        def gone(leaving: asyncio.Task[None]) -> None:
            if self._leaving.get(digest) is leaving:
                del self._leaving[digest]
            if not leaving.cancelled() and leaving.exception() is not None:
                logger.warning("adapter %s was not freed: %s", digest[:12], leaving.exception())

        leaving.add_done_callback(gone)
        return leaving

    async def _load(self, adapter: Adapter) -> None:
        started = time.perf_counter()
        try:
            await asyncio.to_thread(self._store.verify, adapter.digest)
            if (leaving := self._leaving.get(adapter.digest)) is not None:
                await asyncio.wait({leaving})
            async with self._loading:
                await self._engine.load(adapter.digest, adapter.path)
        except (AdapterDamaged, AdapterLoadFailed) as error:
            self._failures[adapter.digest] = str(error)
            self._metrics.loads.labels(result="failed").inc()
            raise
        self._failures.pop(adapter.digest, None)
        self._metrics.loads.labels(result="loaded").inc()
        self._metrics.load_seconds.observe(time.perf_counter() - started)
