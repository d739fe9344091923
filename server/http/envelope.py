"""The outermost middleware, as plain ASGI so that streams pass unchanged: puts id and time on every answer."""

import logging
import time
import uuid

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.http.statuses import status_and_body

logger = logging.getLogger(__name__)


class Envelope:
    """Adds OpenAI's response headers, and answers uncaught errors with 500.

    Headers that a route puts into `request.state.headers` are added to its answer, also to an error.
    `request.state.send` is the web server's own `send`, for a stream whose head has been sent.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = f"req_{uuid.uuid4().hex}"
        begun = False
        more: dict[str, str] = {}
        scope.setdefault("state", {}).update(headers=more, send=send)

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

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            logger.exception("%s %r failed", scope["method"], scope["path"])
            if begun:
                raise
            status, content = status_and_body(error)
            await JSONResponse(content, status)(scope, receive, send_with_headers)
