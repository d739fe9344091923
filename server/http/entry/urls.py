"""Normalises URLs: trailing and doubled slashes, absolute URLs, HEAD as GET, nulls in a query.

A model's name may hold slashes, which the SDK encodes; encoded slashes are left as they are.
"""

import re
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

ABSOLUTE = re.compile(rb"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*")
SLASHES = re.compile(rb"/{2,}")
NULLS = re.compile(
    rb"(?:^|(?<=&))(?!metadata=)[a-z_]+=(?=&|$)&?"
)  # the SDK for Node writes null as nothing; in `metadata=` that has a meaning
CONTROLS = re.compile("[\0-\x1f\x7f]")


class Urls:
    """Brings a request's path into the form that routes have.

    Control characters, which no name holds, become U+FFFD, since a newline breaks the match of routes, and PostgreSQL
    refuses NUL.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            raw = scope.get("raw_path") or scope["path"].encode()
            raw = SLASHES.sub(b"/", ABSOLUTE.sub(b"", raw.partition(b"?")[0])).rstrip(b"/") or b"/"
            path = CONTROLS.sub("\ufffd", unquote_to_bytes(raw).decode("utf-8", "replace"))
            query = NULLS.sub(b"", scope["query_string"]).replace(b"%00", b"%EF%BF%BD")
            method = "GET" if scope["method"] == "HEAD" else scope["method"]  # the web server drops the body
            scope = {**scope, "raw_path": raw, "path": path, "query_string": query, "method": method}
        await self._app(scope, receive, send)
