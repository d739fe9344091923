"""An engine in the test's hand: the real one takes 40 seconds to start, and does not die when asked to."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from server.generation import AdapterLoadFailed, Delta, EngineUnavailable, Sampling, Tools


class HandEngine:
    """Follows `Engine`; the test decides how long loads take, which fail, and when it dies.

    Attributes:
        calls: ("load" or "unload", digest) as they came.
        held: digests in memory; more than `capacity` at once is an error of the caller.
        failing: digests whose load fails.
    """

    def __init__(self, capacity: int = 100) -> None:
        self.capacity = capacity
        self.calls: list[tuple[str, str]] = []
        self.held: set[str] = set()
        self.failing: set[str] = set()
        self.starts = 0
        self.fails_to_start = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.dead = asyncio.Event()
        self.loading = 0

    ready = True
    tokenizer: Any = None

    async def start(self) -> None:
        self.starts += 1
        if self.fails_to_start:
            raise EngineUnavailable("does not start")
        self.dead.clear()
        self.held.clear()

    async def died(self) -> None:
        await self.dead.wait()

    async def stop(self) -> None:
        self.held.clear()

    async def load(self, digest: str, path: Path) -> None:
        assert path.is_dir()
        self.loading += 1
        assert self.loading == 1, "the engine stands still while it loads: one at a time"
        try:
            await self.gate.wait()
        finally:
            self.loading -= 1
        self.calls.append(("load", digest))
        if digest in self.failing:
            raise AdapterLoadFailed("no")
        assert digest not in self.held
        self.held.add(digest)
        assert len(self.held) <= self.capacity

    async def unload(self, digest: str) -> None:
        self.calls.append(("unload", digest))
        self.held.discard(digest)

    def generate(
        self, prompt: list[int], sampling: Sampling, adapter: str | None, tools: Tools | None = None
    ) -> AsyncIterator[Delta]:
        raise NotImplementedError
