"""`POST /v1/chat/completions`, plain and streamed."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from adapters import template
from server.generation import Delta, TokenLogprob
from server.http import errors
from server.http.auth import Caller
from server.models.catalog import Model
from server.openai import chat_wire as wire
from server.services import Services, Use

logger = logging.getLogger(__name__)
router = APIRouter()
T = TypeVar("T")

CLIENT_GONE = 499  # nginx's status for it; nobody reads it
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class ClientGone(Exception):
    """The client closed the connection before the answer."""


@router.post("/v1/chat/completions")
async def create(body: wire.ChatRequest, request: Request, use: Use, caller: Caller) -> Response:
    """Answer a conversation.

    Everything that can fail before the first token does so before the status is sent: such failures are plain JSON.
    """
    body.refuse_unsupported()
    stack = contextlib.AsyncExitStack()
    try:
        generation = await _until_gone(request, _begin(body, use, stack))
        if body.stream:
            include_usage = body.stream_options is not None and body.stream_options.include_usage
            writer = wire.Writer(generation.model, include_usage)
            return _EventStream(_events(generation, writer, body.n or 1, include_usage), stack.pop_all())
        answer = await _until_gone(request, _collect(generation, wire.Writer(generation.model), body.n or 1))
        return JSONResponse(answer)
    except ClientGone:
        return Response(status_code=CLIENT_GONE)
    finally:
        await stack.aclose()


class _Generation:
    """A request being answered: its deltas, first one included, and the figures it leaves when it ends."""

    def __init__(
        self, model: Model, prompt_tokens: int, deltas: AsyncIterator[Delta], use: Services, started: float
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = 0
        self.cached_tokens = 0
        self._deltas = deltas
        self._first: Delta | None = None
        self.model = model.name  # an alias's answer names the version, as OpenAI's do
        self._metrics = use.metrics
        self._started = started
        self._status = "ok"

    async def begin(self) -> None:
        """Wait for the first delta."""
        self._first = await anext(self._deltas)
        self._metrics.first_token_seconds.labels(model=self.model).observe(time.perf_counter() - self._started)

    async def __aiter__(self) -> AsyncIterator[Delta]:
        """The deltas."""
        if self._first is not None:
            yield self._count(self._first)
            async for delta in self._deltas:
                yield self._count(delta)

    def usage(self) -> dict[str, Any]:
        """Usage so far."""
        return wire.usage(self.prompt_tokens, self.completion_tokens, self.cached_tokens)

    def failed(self) -> None:
        """Have the metrics count it as failed."""
        self._status = "error"

    def end(self) -> None:
        """Record the figures."""
        self._metrics.requests.labels(model=self.model, status=self._status).inc()
        self._metrics.prompt_tokens.labels(model=self.model).inc(self.prompt_tokens)
        self._metrics.completion_tokens.labels(model=self.model).inc(self.completion_tokens)
        self._metrics.request_seconds.labels(model=self.model).observe(time.perf_counter() - self._started)

    def _count(self, delta: Delta) -> Delta:
        self.completion_tokens += delta.tokens
        self.cached_tokens = max(self.cached_tokens, delta.cached_tokens)
        return delta


async def _begin(body: wire.ChatRequest, use: Services, stack: contextlib.AsyncExitStack) -> _Generation:
    started = time.perf_counter()  # before an adapter is loaded: the client waits for that too
    model = await stack.enter_async_context(use.catalog.use(body.model, body.user))
    running = use.metrics.running.labels(model=model.name)
    running.inc()
    stack.callback(running.dec)
    messages = [{"role": message.role, "content": message.text()} for message in body.messages]
    system = model.manifest.system_prompt
    if system is not None and not any(message["role"] in ("system", "developer") for message in messages):
        messages.insert(0, {"role": "system", "content": system})
    tokenizer = use.engine.tokenizer
    text = template.render(tokenizer, messages, template=model.manifest.chat_template, generation_prompt=True)
    prompt = template.encode(tokenizer, text)
    sampling = body.sampling(model.manifest.sampling)
    deltas = use.engine.generate(prompt, sampling, model.adapter.digest if model.adapter else None)
    stack.push_async_callback(deltas.aclose)  # pyright: ignore[reportAttributeAccessIssue]
    generation = _Generation(model, len(prompt), deltas, use, started)
    stack.callback(generation.end)
    try:
        await generation.begin()
    except Exception:
        generation.failed()
        raise
    return generation


async def _collect(generation: _Generation, writer: wire.Writer, n: int) -> dict[str, Any]:
    texts = [""] * n
    tokens: list[list[TokenLogprob]] = [[] for _ in range(n)]
    reasons: list[str | None] = [None] * n
    wanted = False
    async for delta in generation:
        texts[delta.index] += delta.text
        tokens[delta.index] += delta.logprobs
        reasons[delta.index] = delta.finish_reason
        wanted = wanted or bool(delta.logprobs)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": texts[index], "refusal": None, "annotations": []},
            "logprobs": wire.logprobs(tokens[index]) if wanted else None,
            "finish_reason": reasons[index],
        }
        for index in range(n)
    ]
    return writer.answer(choices, generation.usage())


async def _events(generation: _Generation, writer: wire.Writer, n: int, include_usage: bool) -> AsyncIterator[str]:
    for index in range(n):
        yield writer.chunk(index, '{"role": "assistant", "content": "", "refusal": null}')
    try:
        async for delta in generation:
            if delta.text or delta.logprobs:
                tokens = json.dumps(wire.logprobs(delta.logprobs)) if delta.logprobs else "null"
                yield writer.chunk(delta.index, f'{{"content": {json.dumps(delta.text)}}}', tokens)
            if delta.finish_reason is not None:
                yield writer.chunk(delta.index, "{}", finish_reason=delta.finish_reason)
    except Exception as error:
        generation.failed()
        logger.exception("a stream broke off")
        yield errors.event(error)
        return
    if include_usage:
        yield writer.usage_chunk(generation.usage())
    yield "data: [DONE]\n\n"


class _EventStream(StreamingResponse):
    """An event stream that frees what the request holds however it ends, also where it never began."""

    def __init__(self, events: AsyncIterator[str], held: contextlib.AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers=STREAM_HEADERS)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._held.aclose()


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
