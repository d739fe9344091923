"""From a request to its answer, for all text endpoints: hold the model, ask the engine, record metrics."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from anyio import CapacityLimiter, to_thread

from adapters.chat import ending, template
from adapters.manifest import SamplingDefaults
from server.errors import ContextLengthExceeded, InvalidRequest
from server.inference.catalog import Catalog, Model
from server.inference.engine import STRUCTURE, Delta, Engine, Sampling, Tools
from server.metrics import Metrics

LONG_AT_A_TIME = 4
LONG_CHARACTERS = 20_000  # longer texts are tokenised on a thread: 100,000 take 100 ms and would stop all streams


@dataclass(frozen=True)
class Asked:
    """A client's request.

    Attributes:
        user: an alias with several versions always answers a user with the same one.
        sampling: makes the sampling parameters from the adapter's defaults.
        prompts: makes the token ids of each prompt, for the model.
        characters: about how long the request is.
        param: the field that holds the prompts.
        structure_param: the field that says what the answer must look like.
        turn: whether the answer is an assistant's turn, which ends where its template ends it.
    """

    model: str
    user: str | None
    sampling: Callable[[SamplingDefaults], Sampling]
    prompts: Callable[[Model, Engine], list[list[int]]]
    characters: int
    param: str
    structure_param: str
    tools: Tools | None = None
    turn: bool = False

    def name(self, error: InvalidRequest) -> None:
        """Put the name of the request's field into an engine's error."""
        if isinstance(error, ContextLengthExceeded):
            error.param = self.param
        elif error.param == STRUCTURE:
            error.param = self.structure_param


class Generation:
    """A request that is being answered: its deltas, and its metrics, which are recorded at the end.

    Iterating yields the deltas of all answers; answer j (of n) to prompt p has the index p * n + j.
    """

    def __init__(
        self, asked: Asked, model: Model, prompts: list[list[int]], sampling: Sampling, metrics: Metrics
    ) -> None:
        self.model = model.name  # an alias's answer names the version, as OpenAI's do
        self.prompts = prompts
        self.answers = len(prompts) * sampling.n
        self.completion_tokens = 0
        self._asked = asked
        self._cached_tokens = [0] * len(prompts)
        self._sampling = sampling
        self._metrics = metrics
        self._status = "ok"
        self._first: Delta | None = None
        self._deltas: AsyncIterator[Delta]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(map(len, self.prompts))

    @property
    def cached_tokens(self) -> int:
        """How many of the prompt tokens came from the prefix cache."""
        return sum(self._cached_tokens)

    async def begin(self, deltas: AsyncIterator[Delta], started: float) -> None:
        """Wait for the first delta."""
        self._deltas = deltas
        self._first = await anext(deltas)
        if self._sampling.streamed:
            self._metrics.first_token_seconds.labels(model=self.model).observe(time.perf_counter() - started)

    async def __aiter__(self) -> AsyncIterator[Delta]:
        """The deltas."""
        if self._first is not None:
            yield self._count(self._first)
            try:
                async for delta in self._deltas:
                    yield self._count(delta)
            except InvalidRequest as error:
                self._asked.name(error)
                raise

    def failed(self) -> None:
        """Let the metrics count the request as failed."""
        self._status = "error"

    def end(self, started: float) -> None:
        """Record the metrics."""
        self._metrics.requests.labels(model=self.model, status=self._status).inc()
        self._metrics.prompt_tokens.labels(model=self.model).inc(self.prompt_tokens)
        self._metrics.completion_tokens.labels(model=self.model).inc(self.completion_tokens)
        self._metrics.request_seconds.labels(model=self.model).observe(time.perf_counter() - started)

    def _count(self, delta: Delta) -> Delta:
        self.completion_tokens += delta.tokens
        prompt = delta.index // self._sampling.n
        self._cached_tokens[prompt] = max(self._cached_tokens[prompt], delta.cached_tokens)
        return delta


class Answering:
    """Begins answers; the routes read the request and write the deltas."""

    def __init__(self, engine: Engine, catalog: Catalog, metrics: Metrics) -> None:
        self._engine = engine
        self._catalog = catalog
        self._metrics = metrics
        self._long = CapacityLimiter(LONG_AT_A_TIME)

    async def begin(
        self, asked: Asked, held: contextlib.AsyncExitStack, priority: int, admit: Callable[[int], Awaitable[None]]
    ) -> Generation:
        """Start an answer and wait for its first token, so that earlier errors are raised here.

        Args:
            held: receives what the answer holds (the model, the engine's work); to be closed when the answer ends.
            priority: higher numbers wait longer.
            admit: called with the most tokens that the request may cost, before the engine is asked; may refuse it.
        """
        started = time.perf_counter()  # before the adapter is loaded, since the client waits for that too
        model = await held.enter_async_context(self._catalog.use(asked.model, asked.user))
        running = self._metrics.running.labels(model=model.name)
        running.inc()
        held.callback(running.dec)
        apart = template.is_foreign(self._engine.tokenizer, model.manifest.chat_template)
        if apart or asked.characters + len(model.manifest.system_prompt or "") > LONG_CHARACTERS:
            prompts, sampling = await to_thread.run_sync(self._read, asked, model, limiter=self._long)
        else:
            prompts, sampling = self._read(asked, model)
        streamed = sampling.streamed or sampling.top_logprobs is not None  # logprobs are large: taken by deltas
        sampling = replace(sampling, priority=max(priority, sampling.priority), streamed=streamed)
        generation = Generation(asked, model, prompts, sampling, self._metrics)
        await admit(generation.prompt_tokens + generation.answers * (sampling.max_tokens or 0))
        digest = model.adapter.digest if model.adapter else None
        streams = [self._engine.generate(prompt, sampling, digest, asked.tools) for prompt in prompts]
        for one in streams:
            held.push_async_callback(one.aclose)  # pyright: ignore[reportAttributeAccessIssue]
        deltas = streams[0]
        if len(streams) > 1:
            deltas = await held.enter_async_context(contextlib.aclosing(_merged(streams, sampling.n)))
        held.callback(generation.end, started)
        try:
            await generation.begin(deltas, started)
        except Exception as error:
            generation.failed()
            if isinstance(error, InvalidRequest):
                asked.name(error)
            raise
        return generation

    def _read(self, asked: Asked, model: Model) -> tuple[list[list[int]], Sampling]:
        prompts, sampling = asked.prompts(model, self._engine), asked.sampling(model.manifest.sampling)
        if asked.turn:
            ends = ending.ids(self._engine.tokenizer, model.manifest.chat_template, model.ends)
            sampling = replace(sampling, ends=ends)
        return prompts, sampling


async def _merged(streams: Sequence[AsyncIterator[Delta]], n: int) -> AsyncGenerator[Delta, None]:
    """The streams' deltas as they come, with indexes over all prompts; an error in one stream ends all."""
    asked: dict[asyncio.Future[Delta], int] = {}

    def ask(prompt: int) -> None:
        asked[asyncio.ensure_future(anext(streams[prompt]))] = prompt

    for prompt in range(len(streams)):
        ask(prompt)
    try:
        while asked:
            come, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for one in come:
                prompt = asked.pop(one)
                try:
                    delta = one.result()
                except StopAsyncIteration:
                    continue
                ask(prompt)
                yield replace(delta, index=delta.index + prompt * n)
    finally:
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
