"""Which models can be called: the base, every registered adapter, and aliases that point at adapters."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from adapters.errors import AdapterNotFound
from adapters.manifest import Manifest
from adapters.registry import Adapter, Alias, Registry
from server.errors import InvalidRequest
from server.inference.residency import Residency, State
from server.metrics import Metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A model to call; `adapter` is None for the base. `ends`: tokens that end its answers, besides the template's."""

    name: str
    adapter: Adapter | None
    manifest: Manifest
    ends: tuple[int, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A name in the list of models; `created_at` in Unix seconds."""

    name: str
    created_at: int
    owned_by: str


class Catalog:
    """Models by name. All changes of the registry go through this class, so it can keep aliases in memory."""

    def __init__(self, registry: Registry, residency: Residency, full: Residency | None, metrics: Metrics) -> None:
        """Make one; `residency` is for adapters, `full` for full models, or None if those are not served."""
        self.registry = registry
        self._adapters = residency
        self._full = full
        self._metrics = metrics
        self._models: dict[str, Model] = {}
        self._aliases: dict[str, Alias] = {alias.name: alias for alias in registry.aliases()}
        self._removing: set[str] = set()
        self._alias_lock = Lock()  # so that database and memory change in the same order
        own = Manifest(chat_template=registry.base.chat_template)
        self.base = Model(registry.base.name, None, own, registry.base.ends)
        for adapter in registry.pinned():
            try:
                self._residency(adapter).pin(adapter.digest)
            except InvalidRequest as error:  # max_cpu_loras was lowered: start, and log what is not pinned
                logger.warning("%s stays unpinned: %s", adapter.name, error)

    def list(self) -> list[Entry]:
        """The base, then every adapter and alias, oldest first."""
        named = [*self.registry.list(), *self.registry.aliases()]
        entries = [Entry(one.name, one.created_at, one.owned_by) for one in named]
        return [self._base_entry(), *sorted(entries, key=lambda entry: entry.created_at)]

    def get(self, name: str) -> Entry:
        """The entry of one name.

        Raises:
            AdapterNotFound: there is no such model, or it is being removed.
        """
        if name == self.base.name:
            return self._base_entry()
        if name in self._removing:
            raise AdapterNotFound(name)
        one = self._aliases.get(name) or self.registry.get(name)
        return Entry(one.name, one.created_at, one.owned_by)

    def is_alias(self, name: str) -> bool:
        """Whether the name is an alias."""
        return name in self._aliases

    def served(self, alias: str | None) -> str | None:
        """The version that answers most of an alias's requests; None if there is no such alias."""
        known = self._aliases.get(alias) if alias is not None else None
        return max(known.weights, key=known.weights.__getitem__) if known else None

    def register(self, name: str, source: Path, owned_by: str, within: Sequence[Path] = ()) -> Adapter:
        """Validate, store and name an adapter's files; see `Registry.register`."""
        return self.registry.register(name, source, owned_by=owned_by, within=within)

    @contextlib.asynccontextmanager
    async def use(self, name: str, user: str | None = None) -> AsyncIterator[Model]:
        """Hold a model for one request: it is loaded, and neither evicted nor removed until the block ends.

        Args:
            user: an alias with several versions always answers a user with the same one.

        Raises:
            AdapterNotFound: there is no such model.
            AdapterLoadFailed, EngineUnavailable: the engine did not take it.
        """
        alias = self._aliases.get(name)
        model = await self._find(alias.pick(user) if alias else name)
        if model.adapter is None:
            yield model
            return
        async with self._residency(model.adapter).hold(model.adapter):
            yield model

    async def load(self, name: str) -> Adapter:
        """Load an adapter before its first request.

        Raises:
            AdapterNotFound: there is none of that name.
            AdapterLoadFailed, EngineUnavailable: the engine did not take it.
        """
        adapter = await asyncio.to_thread(self.registry.get, name)
        async with self._residency(adapter).hold(adapter):
            return adapter

    async def unload(self, name: str) -> Adapter:
        """Let running requests end, then free the adapter's memory; its next request loads it again.

        Raises:
            AdapterNotFound: there is none of that name.
            InvalidRequest: it is pinned.
        """
        adapter = await asyncio.to_thread(self.registry.get, name)
        if adapter.pinned:
            raise InvalidRequest(f"{name!r} is pinned; unpin it first", "name")
        await self._residency(adapter).unload(adapter.digest)
        return adapter

    async def pin(self, name: str) -> Adapter:
        """Load an adapter and keep it in memory, also after a restart.

        Raises:
            AdapterNotFound: there is none of that name.
            InvalidRequest: the limit on pinned adapters is reached.
            AdapterLoadFailed, EngineUnavailable: the engine did not take it.
        """
        adapter = await asyncio.to_thread(self.registry.get, name)
        self._residency(adapter).pin(adapter.digest)
        try:
            async with self._residency(adapter).hold(adapter):
                return await asyncio.to_thread(self.registry.pin, name, True)
        except BaseException:
            await self._unpin(adapter)
            raise

    async def unpin(self, name: str) -> Adapter:
        """Let an adapter be evicted again.

        Raises:
            AdapterNotFound: there is none of that name.
        """
        adapter = await asyncio.to_thread(self.registry.pin, name, False)
        await self._unpin(adapter)
        return adapter

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove an adapter: refuse new requests, let running ones end, then remove it from engine, registry and disk.

        Raises:
            AdapterNotFound: there is none of that name.
            AdapterInUse: an alias points at it, and `force` is False.
        """
        adapter = await asyncio.to_thread(self.registry.get, name)
        if name in self._removing:
            raise AdapterNotFound(name)
        await asyncio.to_thread(self.registry.check_unaliased, name, force=force)
        self._removing.add(name)
        try:
            if len(await asyncio.to_thread(self.registry.named, adapter.digest)) == 1:
                await self._residency(adapter).unload(adapter.digest)
            await asyncio.to_thread(self.registry.remove, name, force=force)
            await self._unpin(adapter)
            await asyncio.to_thread(self._read_aliases)
            self._models.pop(name, None)
            self._metrics.forget(name)
        finally:
            self._removing.discard(name)

    def set_alias(self, name: str, weights: Mapping[str, int], owned_by: str) -> Alias:
        """Make or move an alias, for all following requests; see `Registry.set_alias`."""
        with self._alias_lock:
            alias = self._aliases[name] = self.registry.set_alias(name, weights, owned_by=owned_by)
        return alias

    def remove_alias(self, name: str) -> None:
        """Remove an alias; see `Registry.remove_alias`."""
        with self._alias_lock:
            self.registry.remove_alias(name)
            self._aliases.pop(name, None)

    def _read_aliases(self) -> None:
        with self._alias_lock:
            self._aliases = {alias.name: alias for alias in self.registry.aliases()}

    def state(self, adapter: Adapter) -> tuple[State, str | None]:
        """The adapter's state, and why its last load failed, if it did."""
        if adapter.full and self._full is None:
            return "registered", None
        return self._residency(adapter).state(adapter.digest)

    def reset(self) -> None:
        """Note that the engine died with its adapters; `restore` loads them again."""
        self._adapters.reset()

    async def restore(self) -> None:
        """Load a new engine's adapters; see `Residency.restore`."""
        await self._adapters.restore(await asyncio.to_thread(self.registry.pinned))

    async def _find(self, name: str) -> Model:
        if name == self.base.name:
            return self.base
        if name in self._removing:
            raise AdapterNotFound(name)
        known = self._models.get(name)
        return known or await asyncio.to_thread(self._read, name)

    def _read(self, name: str) -> Model:
        adapter = self.registry.get(name)
        manifest = Manifest.read(adapter.path)
        if manifest.chat_template is None:
            manifest = manifest.model_copy(update={"chat_template": self.base.manifest.chat_template})
        ends = (*self.base.ends, *manifest.stop_token_ids)
        model = self._models[name] = Model(name, adapter, manifest, ends)
        return model

    async def _unpin(self, adapter: Adapter) -> None:
        if not any(other.pinned for other in await asyncio.to_thread(self.registry.named, adapter.digest)):
            self._residency(adapter).unpin(adapter.digest)

    def _residency(self, adapter: Adapter) -> Residency:
        if not adapter.full:
            return self._adapters
        if self._full is None:
            raise InvalidRequest(f"{adapter.name!r} is a full model; set max_full_models to serve it", "model")
        return self._full

    def _base_entry(self) -> Entry:
        return Entry(self.base.name, int(self.registry.base.path.stat().st_mtime), "tuneport")
