"""An engine that tests control: the real one takes 30 seconds to start, and cannot be told to stall or die."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from server.engine.tokens import TokenBytes
from server.errors import AdapterLoadFailed, ContextLengthExceeded, EngineUnavailable
from server.inference.engine import Delta, Sampling, TokenLogprob, Tools

ANSWER = "The capital of France is Paris."


@dataclass(frozen=True)
class Asked:
    """The arguments of a call of `generate`."""

    prompt: list[int]
    sampling: Sampling
    adapter: str | None
    tools: Tools | None


class ScriptedEngine:
    """Implements `Engine`; the test decides what it answers, how long loads take, which fail, when it stalls or dies.

    Attributes:
        answer: the answer to every request, a token at a time; repeated if `max_tokens` is larger.
        pause_seconds: before each token.
        refusal: raised by `generate` instead of an answer.
        flowing: while it is not set, streams yield nothing.
        asked: the requests, in order.
        running: number of streams that have begun and not ended.
        calls: ("load" or "unload", digest), in order.
        held: digests in memory; more than `capacity` is the caller's error.
        failing: digests whose load fails.
        gate: while it is not set, loads wait.
        dead: if set, the engine is dead, and its streams end with EngineUnavailable.
    """

    def __init__(self, capacity: int = 100, tokenizer: Any = None, context: int = 8192) -> None:
        self.capacity = capacity
        self.tokenizer = tokenizer
        self.context = context
        self.answer = ANSWER
        self.pause_seconds = 0.0
        self.refusal: Exception | None = None
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.asked: list[Asked] = []
        self.running = 0
        self.calls: list[tuple[str, str]] = []
        self.held: set[str] = set()
        self.failing: set[str] = set()
        self.starts = 0
        self.fails_to_start = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.dead = asyncio.Event()
        self.loading = 0
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def ready(self) -> bool:
        return not self.dead.is_set()

    def on_loss(self, tell: Callable[[str], object]) -> None:
        self.lose = tell

    async def start(self) -> None:
        self.starts += 1
        self.loop = asyncio.get_running_loop()
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

    async def generate(
        self, prompt: list[int], sampling: Sampling, adapter: str | None, tools: Tools | None = None
    ) -> AsyncIterator[Delta]:
        self.asked.append(Asked(prompt, sampling, adapter, tools))
        if self.refusal is not None:
            raise self.refusal
        if len(prompt) + (sampling.max_tokens or 1) > self.context:
            raise ContextLengthExceeded(f"This model's maximum context length is {self.context} tokens.")
        assert adapter is None or adapter in self.held, "an adapter that is not loaded"
        ids: list[int] = self.tokenizer(self.answer).input_ids
        length = min(sampling.max_tokens or len(ids), self.context - len(prompt))
        made = [ids[number % len(ids)] for number in range(length)]
        texts = {token: self.tokenizer.decode([token]) for token in ids}
        shown = TokenBytes(self.tokenizer)

        def logprob(token: int, top: int | None, value: float | None = -0.5) -> TokenLogprob:
            others = tuple(TokenLogprob(f"{other}", -1.0 - other, b"%d" % other) for other in range(top or 0))
            return TokenLogprob(shown.text(token), value, shown.of(token), others)

        self.running += 1
        try:
            for number, token in enumerate(made):
                await asyncio.sleep(self.pause_seconds)
                await self.flowing.wait()
                if not self.ready:
                    raise EngineUnavailable("the engine stopped while it answered; try again shortly")
                last = number == length - 1
                reason = None if not last else "length" if sampling.max_tokens == length else "stop"
                delta = Delta(0, texts[token], 1, finish_reason=reason)
                if sampling.top_logprobs is not None:
                    delta = replace(delta, logprobs=(logprob(token, sampling.top_logprobs),))
                if sampling.prompt_logprobs is not None and number == 0:
                    top, places = sampling.prompt_logprobs, enumerate(prompt)
                    scored = tuple(logprob(token, top, -0.5 if place else None) for place, token in places)
                    delta = replace(delta, prompt_logprobs=scored)
                for index in range(sampling.n):
                    yield replace(delta, index=index)
        finally:
            self.running -= 1
