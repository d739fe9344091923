"""Finds the caller's key: `Authorization: Bearer KEY`, as OpenAI's clients send it."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import Forbidden, Unauthorized
from server.state.keys import Key, Keys

LOCAL = Key(id="key_local", name="no-auth", hint="", admin=True, created_at=0)
GUARDED = ("/v1", "/admin")
METRICS = "/metrics"
ADMINISTERED = ("/admin/", f"{METRICS}/")
LOOKUPS = 8  # database lookups of keys at a time


class Identity:
    """Finds the caller's key before the body is read, so that callers without one cannot fill the disk with uploads."""

    def __init__(self, app: ASGIApp, guarded: Sequence[str], keys: Callable[[Any], Keys | None]) -> None:
        """Make one.

        Args:
            guarded: paths that need a key, with all paths below them.
            keys: returns the application's keys; None if anybody may do everything (`no_auth`).
        """
        self._app = app
        self._guarded = tuple(f"{path}/" for path in guarded)
        self._keys = keys
        self._lookups = CapacityLimiter(LOOKUPS)  # separate threads: others may all be busy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        path = f"{scope['path']}/" if scope["type"] == "http" else ""
        if path.startswith(self._guarded):
            state = scope.setdefault("state", {})
            if "caller" not in state:  # a batch's line brings its caller
                key = await self._identify(Headers(scope=scope), self._keys(scope["app"]))
                if path.startswith(ADMINISTERED):
                    await administrator(key)
                state["caller"] = key
        await self._app(scope, receive, send)

    async def _identify(self, headers: Headers, keys: Keys | None) -> Key:
        if keys is None:
            return LOCAL
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise Unauthorized("You didn't provide an API key. Send it in the header `Authorization: Bearer YOUR_KEY`.")
        key = keys.recent(secret) or await to_thread.run_sync(keys.check, secret, limiter=self._lookups)
        if key is None:
            shown = f"{secret[:3]}***{secret[-4:]}" if len(secret) > 12 else "***"
            raise Unauthorized(f"Incorrect API key provided: {shown}. `tuneport keys create` makes a new one.")
        return key


async def caller(request: Request) -> Key:
    """The caller's key, which `Identity` found.

    Raises:
        Unauthorized: the route is not one that `Identity` guards.
    """
    key: Key | None = getattr(request.state, "caller", None)
    if key is None:
        raise Unauthorized("This address takes no key.")
    return key


async def administrator(key: Annotated[Key, Depends(caller)]) -> Key:
    """The caller's key, which must be an admin key.

    Raises:
        Forbidden: it is a user key.
    """
    if not key.admin:
        raise Forbidden("This needs an admin key; yours is a user key.")
    return key


Caller = Annotated[Key, Depends(caller)]
CALLER = Depends(caller)  # for a whole router: app.py gives this or ADMINISTRATOR to each
ADMINISTRATOR = Depends(administrator)
