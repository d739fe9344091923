"""Sends an answer, whole as JSON or event by event, to a client that may disconnect."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from server.errors import ReaderTooSlow
from server.http import statuses

T = TypeVar("T")

CLIENT_GONE = 499  # nginx's status for a client that disconnected
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class ClientGone(Exception):
    """The client closed the connection before the answer."""


def size(request: Request) -> int:
    """Bytes of the body, to estimate the work of rendering: tools, schemas and empty messages count too."""
    return int(request.headers["content-length"])


class Replies:
    """Sends answers, and ends streams whose clients read too slowly."""

    def __init__(self, slow_reader_seconds: float) -> None:
        """Make one; it needs `watch` to run.

        Args:
            slow_reader_seconds: how long an event may wait for the client to read.
        """
        self.seconds = slow_reader_seconds
        self.waiting: dict[_EventStream, float] = {}  # streams that are sending an event, and since when

    async def watch(self) -> None:
        """End streams whose readers are too slow, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.seconds / 4)
            latest = loop.time() - self.seconds
            for stream in [stream for stream, since in self.waiting.items() if since < latest]:
                stream.cut_off()

    async def respond(
        self,
        request: Request,
        begin: Callable[[contextlib.AsyncExitStack], Awaitable[T]],
        *,
        whole: Callable[[T], Awaitable[Response]],
        events: Callable[[T], AsyncIterator[str]] | None,
    ) -> Response:
        """Answer a request.

        Errors before the first token are answered as plain JSON, since no status has been sent by then.

        Args:
            begin: begins the answer; puts what it holds onto the stack, which is closed when the answer has ended.
            whole: makes the whole answer.
            events: makes a stream's events, errors included. None: no stream is wanted.
        """
        held = contextlib.AsyncExitStack()
        try:
            begun = await until_gone(request, begin(held))
            if events is not None:
                return _EventStream(self, events(begun), held.pop_all())
            return await until_gone(request, whole(begun))
        except ClientGone:
            return Response(status_code=CLIENT_GONE)
        finally:
            await held.aclose()


class _EventStream(StreamingResponse):
    """An event stream that frees what the request holds however it ends, even if it never begins.

    Starlette's own needs a task group per stream, and passes each event through middleware that only needs the head.
    """

    def __init__(self, replies: Replies, events: AsyncIterator[str], held: contextlib.AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers=STREAM_HEADERS)
        self._replies = replies
        self._events = events
        self._held = held
        self._sending: asyncio.Task[None] | None = None
        self._cut_off = False

    def cut_off(self) -> None:
        """End the stream: its reader is too slow."""
        self._cut_off = True
        if self._sending is not None:
            self._sending.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until it ends, the client disconnects, or `cut_off` is called."""
        request = Request(scope, receive)
        try:
            with contextlib.suppress(ClientGone):
                self._sending = asyncio.create_task(self._stream(scope, send))
                try:
                    await until_gone(request, self._sending)
                except asyncio.CancelledError:
                    if not self._cut_off:
                        raise
                    await self._held.aclose()  # free the model now; the last event may still wait for the slow reader
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._replies.seconds):
                            await until_gone(request, self._tell_why(scope["state"]["send"]))
        finally:
            await self._held.aclose()

    async def _stream(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        send, waiting, now = scope["state"]["send"], self._replies.waiting, asyncio.get_running_loop().time
        try:
            async for event in self._events:
                waiting[self] = now()
                await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
                del waiting[self]
        finally:
            waiting.pop(self, None)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell_why(self, send: Send) -> None:
        error = ReaderTooSlow(
            f"The answer was ended: an event waited {self._replies.seconds:g} s for its reader (slow_reader_seconds)."
        )
        await send({"type": "http.response.body", "body": statuses.event(error).encode(), "more_body": False})


async def until_gone(request: Request, work: Awaitable[T]) -> T:
    """Await `work`; cancel it as soon as the client disconnects.

    Raises:
        ClientGone: the client disconnected.
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
