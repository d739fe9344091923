"""An answer on its way to a client that may go away: whole as JSON, or event by event."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

T = TypeVar("T")

CLIENT_GONE = 499  # nginx's status for it; nobody reads it
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class ClientGone(Exception):
    """The client closed the connection before the answer."""


def size(request: Request) -> int:
    """How long the request is; tools and schemas are rendered too, and a million empty messages are long."""
    return int(request.headers["content-length"])


async def respond(
    request: Request,
    begin: Callable[[contextlib.AsyncExitStack], Awaitable[T]],
    *,
    whole: Callable[[T], Awaitable[dict[str, Any]]],
    events: Callable[[T], AsyncIterator[str]] | None,
) -> Response:
    """Answer a request.

    Everything that can fail before the first token does so before the status is sent: such failures are plain JSON.

    Args:
        begin: begins the answer; what that holds goes onto the stack, which is closed when the answer has ended.
        whole: makes the answer's object.
        events: makes a stream's events; an error in it is the stream's to tell. None: no stream is wanted.
    """
    held = contextlib.AsyncExitStack()
    try:
        begun = await _until_gone(request, begin(held))
        if events is not None:
            return _EventStream(events(begun), held.pop_all())
        return JSONResponse(await _until_gone(request, whole(begun)))
    except ClientGone:
        return Response(status_code=CLIENT_GONE)
    finally:
        await held.aclose()


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
