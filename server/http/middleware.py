"""Around every request, as plain ASGI so that streams pass untouched: its id, its time, and the limit of its body."""

import logging
import time
import uuid

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.http.errors import describe

logger = logging.getLogger(__name__)

MULTIPART_BYTES = 1024**2  # form fields and boundaries around an uploaded file


class Envelope:
    """Adds OpenAI's response headers, refuses bodies over the limit, and answers what nobody caught with 500.

    Headers that a route puts into `request.state.headers` are on its answer, error or not.

    Args:
        max_body_bytes: for every path but those in `uploads`.
        uploads: path -> largest file it takes; one that ends in a slash stands for all below it.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, uploads: dict[str, int]) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._uploads = {path: size + MULTIPART_BYTES for path, size in uploads.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = f"req_{uuid.uuid4().hex}"
        limit = self._limit(scope["path"])
        announced = Headers(scope=scope).get("content-length", "0")
        received = 0
        begun = False
        more: dict[str, str] = {}
        scope.setdefault("state", {})["headers"] = more

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                more["x-request-id"] = request_id
                more["openai-version"] = "2020-10-01"
                more["openai-processing-ms"] = str(round((time.perf_counter() - started) * 1000))
                added = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in more.items()]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit or (announced.isdigit() and int(announced) > limit):
                raise HTTPException(413, f"The request's body is larger than {limit} bytes.")
            return message

        try:
            await self._app(scope, receive_within_limit, send_with_headers)
        except Exception as error:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if begun:
                raise
            status, content = describe(error)
            await JSONResponse(content, status)(scope, receive, send_with_headers)

    def _limit(self, path: str) -> int:
        below = next(
            (size for prefix, size in self._uploads.items() if prefix[-1] == "/" and path.startswith(prefix)), None
        )
        return below or self._uploads.get(path.rstrip("/"), self._max_body_bytes)
