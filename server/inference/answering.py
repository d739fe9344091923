"""From what a client asks to its answer, whichever endpoint it came through: hold the model, ask the engine, count."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from aiostream import stream
from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from adapters.manifest import SamplingDefaults
from server.errors import ContextLengthExceeded, InvalidRequest
from server.inference.catalog import Model
from server.inference.engine import STRUCTURE, Delta, Sampling, Tools
from server.services import Services
from server.state.keys import Key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
T = TypeVar("T")

CLIENT_GONE = 499  # nginx's status for it; nobody reads it
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
LONG_CHARACTERS = 20_000  # tokenised beside the event loop: 100,000 take 100 ms, in which no other stream would go on


class ClientGone(Exception):
    """The client closed the connection before the answer."""


@dataclass(frozen=True)
class Asked:
    """What a client asks.

    Attributes:
        user: an alias that splits its traffic answers the same user with the same version.
        sampling: how to sample, given the adapter's own defaults.
        prompts: token ids of each prompt, for that model and the base's tokenizer.
        characters: how long the request is, about.
        param: the field that holds the prompts.
        structure_param: the field that says what the answer must look like.
    """

    model: str
    user: str | None
    sampling: Callable[[SamplingDefaults], Sampling]
    prompts: Callable[[Model, "PreTrainedTokenizerBase"], list[list[int]]]
    characters: int
    param: str
    structure_param: str
    tools: Tools | None = None


def size(request: Request) -> int:
    """How long the request is; tools and schemas are rendered too, and a million empty messages are long."""
    return int(request.headers["content-length"])


class Generation:
    """A request being answered: its deltas, first one included, and the figures it leaves when it ends.

    Iterating yields the deltas of all answers; prompt p's answer j of n has the index p * n + j.
    """

    def __init__(self, model: Model, prompts: list[list[int]], sampling: Sampling, use: Services) -> None:
        self.model = model.name  # an alias's answer names the version, as OpenAI's do
        self.prompts = prompts
        self.answers = len(prompts) * sampling.n
        self.completion_tokens = 0
        self._cached_tokens = [0] * len(prompts)
        self._sampling = sampling
        self._metrics = use.metrics
        self._status = "ok"
        self._first: Delta | None = None
        self._deltas: AsyncIterator[Delta]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(map(len, self.prompts))

    @property
    def cached_tokens(self) -> int:
        """How many of them came from the prefix cache."""
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
            async for delta in self._deltas:
                yield self._count(delta)

    def failed(self) -> None:
        """Have the metrics count it as failed."""
        self._status = "error"

    def end(self, started: float) -> None:
        """Record the figures."""
        self._metrics.requests.labels(model=self.model, status=self._status).inc()
        self._metrics.prompt_tokens.labels(model=self.model).inc(self.prompt_tokens)
        self._metrics.completion_tokens.labels(model=self.model).inc(self.completion_tokens)
        self._metrics.request_seconds.labels(model=self.model).observe(time.perf_counter() - started)

    def _count(self, delta: Delta) -> Delta:
        self.completion_tokens += delta.tokens
        prompt = delta.index // self._sampling.n
        self._cached_tokens[prompt] = max(self._cached_tokens[prompt], delta.cached_tokens)
        return delta


async def respond(
    asked: Asked,
    request: Request,
    use: Services,
    caller: Key,
    *,
    whole: Callable[[Generation], Awaitable[dict[str, Any]]],
    events: Callable[[Generation], AsyncIterator[str]] | None,
) -> Response:
    """Answer a request.

    Everything that can fail before the first token does so before the status is sent: such failures are plain JSON.

    Args:
        whole: makes the answer's object.
        events: makes a stream's events; an error in it is the stream's to tell. None: no stream is wanted.
    """
    stack = contextlib.AsyncExitStack()
    try:
        generation = await _until_gone(request, _begin(asked, request, use, caller, stack))
        if events is not None:
            return _EventStream(events(generation), stack.pop_all())
        return JSONResponse(await _until_gone(request, whole(generation)))
    except ClientGone:
        return Response(status_code=CLIENT_GONE)
    finally:
        await stack.aclose()


async def _begin(
    asked: Asked, request: Request, use: Services, caller: Key, stack: contextlib.AsyncExitStack
) -> Generation:
    started = time.perf_counter()  # before an adapter is loaded: the client waits for that too
    priority: int = getattr(request.state, "priority", 0)
    model = await stack.enter_async_context(use.catalog.use(asked.model, asked.user))
    running = use.metrics.running.labels(model=model.name)
    running.inc()
    stack.callback(running.dec)
    tokenizer = use.engine.tokenizer
    if asked.characters > LONG_CHARACTERS:
        prompts = await asyncio.to_thread(asked.prompts, model, tokenizer)
    else:
        prompts = asked.prompts(model, tokenizer)
    sampling = replace(asked.sampling(model.manifest.sampling), priority=priority)
    generation = Generation(model, prompts, sampling, use)
    if priority == 0:  # batches have their own pace
        await use.limits.admit(
            caller, request, generation.prompt_tokens + generation.answers * (sampling.max_tokens or 0)
        )
    digest = model.adapter.digest if model.adapter else None
    streams = [use.engine.generate(prompt, sampling, digest, asked.tools) for prompt in prompts]
    for one in streams:
        stack.push_async_callback(one.aclose)  # pyright: ignore[reportAttributeAccessIssue]
    deltas = streams[0] if len(streams) == 1 else await stack.enter_async_context(_merged(streams, sampling.n))
    stack.callback(generation.end, started)
    try:
        await generation.begin(deltas, started)
    except Exception as error:
        generation.failed()
        if isinstance(error, ContextLengthExceeded):
            error.param = asked.param
        elif isinstance(error, InvalidRequest) and error.param == STRUCTURE:
            error.param = asked.structure_param
        raise
    return generation


def _merged(
    streams: list[AsyncIterator[Delta]], n: int
) -> contextlib.AbstractAsyncContextManager[AsyncIterator[Delta]]:
    async def shifted(deltas: AsyncIterator[Delta], by: int) -> AsyncIterator[Delta]:
        async for delta in deltas:
            yield replace(delta, index=delta.index + by)

    return stream.merge(*(shifted(deltas, prompt * n) for prompt, deltas in enumerate(streams))).stream()


class _EventStream(StreamingResponse):
    """An event stream that frees what the request holds however it ends, also where it never began.

    Starlette's own costs a task group a stream, and for each event the way through all that looks at the head alone.
    """

    def __init__(self, events: AsyncIterator[str], held: contextlib.AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers=STREAM_HEADERS)
        self._events = events
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, until its end or until the client is gone."""
        try:
            with contextlib.suppress(ClientGone):
                await _until_gone(Request(scope, receive), self._stream(scope, send))
        finally:
            await self._held.aclose()

    async def _stream(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        send = scope["state"]["send"]
        async for event in self._events:
            await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(request: Request, work: Awaitable[T]) -> T:
    """Await `work`, and cancel it as soon as the client is gone.

    Raises:
        ClientGone: it is.
    """

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
