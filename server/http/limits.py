"""Rate limits by key, as OpenAI has them: requests and tokens in the last minute.

Uses the asyncio storage of `limits`; its thread storage starts a thread per request and blocks until that runs.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from fastapi import Request
from limits import RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import RateLimited
from server.state.keys import Key

TEXT = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")


class Rates:
    """Counts each request against its key's limits before the body is read; batches are not limited."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        kind = _kind(scope)
        if kind is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        limits: RateLimits = scope["app"].state.services.limits
        if kind == "requests":
            await limits.count(request.state.caller, request)
        with limits.held(kind, request.state.caller, request):
            await self._app(scope, receive, send)


def _kind(scope: Scope) -> str | None:
    """Which of the key's limits the request counts against: "requests", "uploads", or None."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    if scope["path"] in TEXT:
        return "requests"
    form = Headers(scope=scope).get("content-type", "").lower().startswith("multipart/")
    return "uploads" if form and "caller" in scope["state"] else None


class RateLimits:
    """The limits of each key; a limit of None means no limit and no headers. Batches are not limited."""

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        graders: int | None = None,
        at_once: Mapping[str, int | None] = MappingProxyType({}),
    ) -> None:
        """Make one, with nothing asked so far.

        Args:
            requests, tokens: of text endpoints, per minute.
            graders: trial runs of graders per hour.
            at_once: how many may run at a time, by kind: `requests` of text endpoints, `uploads`, `graders`.
        """
        limits = {"requests": requests, "tokens": tokens}
        self._items = {kind: RateLimitItemPerMinute(limit) for kind, limit in limits.items() if limit is not None}
        self._graders = None if graders is None else RateLimitItemPerHour(graders)
        self._at_once = at_once
        self._running: Counter[tuple[str, str]] = Counter()
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def count(self, key: Key, request: Request) -> None:
        """Count a request, and put what is left into its answer's headers.

        Raises:
            RateLimited: the limit per minute is reached.
        """
        await self._spend("requests", 1, key, request)

    async def admit(self, key: Key, request: Request, tokens: int) -> None:
        """Count a request's tokens, and put what is left into its answer's headers.

        Raises:
            RateLimited: the limit per minute is reached; the request counts all the same, as with OpenAI.
        """
        await self._spend("tokens", tokens, key, request)

    async def _spend(self, kind: str, cost: int, key: Key, request: Request) -> None:
        if _from_batch(request):
            return
        item = self._items.get(kind)
        fits = item is None or await self._limiter.hit(item, kind, key.id, cost=cost)
        await self._tell(key, request)
        if item is not None and not fits:
            reset, remaining = await self._limiter.get_window_stats(item, kind, key.id)
            wait = max(reset - time.time(), 1.0)
            raise RateLimited(
                f"Rate limit reached on {kind} per min: Limit {item.amount}, Used {item.amount - remaining}, "
                f"Requested {cost}. Please try again in {wait:.0f}s.",
                kind,
                wait,
            )

    @contextmanager
    def held(self, kind: str, key: Key, request: Request) -> Iterator[None]:
        """Hold one of the key's places for this kind of request while the block runs.

        Raises:
            RateLimited: all of the key's places are taken.
        """
        if _from_batch(request):
            yield
            return
        limit, mine = self._at_once.get(kind), (kind, key.id)
        if limit is not None and self._running[mine] >= limit:
            raise RateLimited(
                f"{limit} {kind} of this key are under way (max_concurrent_{kind}). Please try again when one has "
                "ended.",
                "requests",
                1,
            )
        self._running[mine] += 1
        try:
            yield
        finally:
            self._running[mine] -= 1
            if not self._running[mine]:
                del self._running[mine]

    async def admit_grader(self, key: Key) -> None:
        """Count a trial run of a grader.

        Raises:
            RateLimited: the limit per hour is reached.
        """
        if self._graders is not None and not await self._limiter.hit(self._graders, "graders", key.id):
            reset, _ = await self._limiter.get_window_stats(self._graders, "graders", key.id)
            wait = max(reset - time.time(), 1.0)
            raise RateLimited(
                f"Rate limit reached on graders per hour: Limit {self._graders.amount} (grader_runs_per_hour). "
                f"Please try again in {wait:.0f}s.",
                "requests",
                wait,
            )

    async def _tell(self, key: Key, request: Request) -> None:
        headers: dict[str, str] = request.state.headers
        for kind, item in self._items.items():
            reset, remaining = await self._limiter.get_window_stats(item, kind, key.id)
            headers[f"x-ratelimit-limit-{kind}"] = str(item.amount)
            headers[f"x-ratelimit-remaining-{kind}"] = str(remaining)
            headers[f"x-ratelimit-reset-{kind}"] = f"{max(reset - time.time(), 0):.3f}s"


def _from_batch(request: Request) -> bool:
    """Whether the request is a batch's line, sent by the server itself."""
    return bool(getattr(request.state, "priority", 0))
