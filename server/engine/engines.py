"""The base's engine, and one more for each full model in use: together an `Engine` (server/inference/engine.py).

A full model shares no weights with the base, so it gets its own vLLM, with its own KV cache, which takes half a minute
to load. Engines are started and stopped one at a time, so that one has freed its memory before the next starts.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.base import BaseModel
from adapters.files import full
from server.engine.vllm import EngineOptions, VllmEngine
from server.errors import AdapterLoadFailed
from server.inference.engine import Delta, Sampling, Tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


class Engines:
    """Sends requests for adapters to the base's engine, those for full models to theirs."""

    def __init__(self, base: BaseModel, options: EngineOptions) -> None:
        self._tell: Callable[[str], object] = lambda digest: None
        self._base = base
        self._options = options
        self._engine = VllmEngine(base, options)
        self._own: dict[str, VllmEngine] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """Whether the base's engine answers."""
        return self._engine.ready

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The base model's tokenizer, which full models have too."""
        return self._engine.tokenizer

    @property
    def context(self) -> int:
        """The base's context, which full models have too."""
        return self._engine.context

    def on_loss(self, tell: Callable[[str], object]) -> None:
        """Register `tell`, which is called with the digest of a full model whose engine died."""
        self._tell = tell

    async def start(self) -> None:
        """Start the base's engine."""
        async with self._changing:
            await self._engine.start()

    async def died(self) -> None:
        """Return when the base's engine is dead."""
        await self._engine.died()

    async def stop(self) -> None:
        """Stop all engines."""
        for digest in list(self._own):
            await self.unload(digest)
        await self._engine.stop()

    async def load(self, digest: str, path: Path) -> None:
        """Hand an adapter to the base's engine, or start a full model's own."""
        if not (path / full.WEIGHTS).is_file():
            await self._engine.load(digest, path)
            return
        model = BaseModel(self._base.name, path, self._base.shapes)
        engine = VllmEngine(model, replace(self._options, max_loras=0, tokenizer=self._base.path))
        async with self._changing:
            try:
                await engine.start()
            except Exception as error:
                logger.exception("the engine of full model %s did not start", digest[:12])
                raise AdapterLoadFailed("the full model's engine did not start; see the server's log") from error
            self._own[digest] = engine
            self._watches[digest] = asyncio.create_task(self._watch(digest, engine))

    async def unload(self, digest: str) -> None:
        """Free an adapter, or stop a full model's engine."""
        if digest not in self._own:
            await self._engine.unload(digest)
            return
        async with self._changing:
            if digest in self._own:  # it may have died while we waited for the lock
                self._watches.pop(digest).cancel()
                await self._own.pop(digest).stop()

    def generate(
        self, prompt: list[int], sampling: Sampling, adapter: str | None, tools: Tools | None = None
    ) -> AsyncIterator[Delta]:
        """Stream the answers; see `Engine`."""
        own = self._own.get(adapter) if adapter is not None else None
        if own is not None:
            return own.generate(prompt, sampling, None, tools)
        return self._engine.generate(prompt, sampling, adapter, tools)

    async def _watch(self, digest: str, engine: VllmEngine) -> None:
        await engine.died()
        logger.error("the engine of full model %s died; its next request starts it again", digest[:12])
        self._own.pop(digest, None)
        self._watches.pop(digest, None)
        await engine.stop()
        self._tell(digest)
