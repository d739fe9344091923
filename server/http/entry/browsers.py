"""Refuses other sites' web pages: any page in a user's browser can reach a server without keys on 127.0.0.1.

Browsers say in `Origin` and `Sec-Fetch-Site` which site's page asks. `Host` reveals DNS rebinding, where an attacker's
domain resolves to this machine, so that its page has the same origin. Other clients send only `Host`.
"""

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import Forbidden
from server.http.statuses import status_and_body

FOREIGN = ("cross-site", "same-site")  # same-site: another port of this machine, which may be another user's
ANY = "*"


class Browsers:
    """Refuses pages of other sites before anything else is done.

    Args:
        guarded: whether the server runs without keys. With keys, pages are harmless, since they have none; then only
            CORS preflights are refused.
        origins: sites whose pages are allowed, `https://host:port` each, or "*" for all.
    """

    def __init__(self, app: ASGIApp, guarded: bool, origins: Iterable[str] = ()) -> None:
        self._app = app
        self._guarded = guarded
        self._origins = frozenset(origins)
        self._hosts = frozenset(str(urlsplit(origin).hostname) for origin in self._origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        inner = "caller" in scope.get("state", {})  # a batch's line, sent by the server itself
        complaint = None if scope["type"] != "http" or inner else self._complaint(scope, Headers(scope=scope))
        if complaint is None:
            await self._app(scope, receive, send)
        else:
            status, content = status_and_body(Forbidden(complaint))
            await JSONResponse(content, status, {"vary": "Origin"})(scope, receive, send)

    def _complaint(self, scope: Scope, headers: Headers) -> str | None:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        listed = bool(origins) and all(self._listed(origin) for origin in origins)
        own = {f"{scope.get('scheme', 'http')}://{host}".lower() for host in hosts}
        foreign = [origin for origin in origins if not self._listed(origin) and origin.lower() not in own]
        if not self._guarded:
            asks = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
            return _told("Origin", foreign[0]) if asks and foreign else None
        for host in hosts:
            if not self._is_ours(host):
                return _told("Host", host)
        if foreign:
            return _told("Origin", foreign[0])
        if not listed and headers.get("sec-fetch-site") in FOREIGN:
            return _told("Sec-Fetch-Site", headers["sec-fetch-site"])
        return None

    def _listed(self, origin: str) -> bool:
        return ANY in self._origins or origin.lower() in self._origins

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:  # a broken IPv6 address
            return False
        name = (name or "").rstrip(".")
        return name == "localhost" or name in self._hosts or _is_here(name)


@lru_cache(maxsize=256)
def _is_here(name: str) -> bool:
    """Whether `name` is an IP address of this machine; a domain name does not count, wherever it resolves to."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((name, 0))
        except OSError:
            return False
    return True


def _told(header: str, value: str) -> str:
    return (
        f"Requests with `{header}: {value}` are refused: web pages of other sites may not use this server. "
        "Name the page's origin in the setting cors_origins if it may."
    )
