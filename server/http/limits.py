"""Rate limits by key, as OpenAI has them: requests and tokens of the last minute.

With the library's storage for asyncio: the other one starts a thread for a request, and waits until it runs.
"""

import time

from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from server.errors import RateLimited
from server.state.keys import Key


class RateLimits:
    """What each key may ask for in a minute; None: as much as it wants, and no headers."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        limits = {"requests": requests, "tokens": tokens}
        self._items = {kind: RateLimitItemPerMinute(limit) for kind, limit in limits.items() if limit is not None}
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def admit(self, key: Key, request: Request, tokens: int) -> None:
        """Count a request of so many tokens, and have its answer say what is left.

        Raises:
            RateLimited: the minute has no room for it; if it is the tokens', the request is counted, as OpenAI does.
        """
        costs = {"requests": 1, "tokens": tokens}
        for kind, item in self._items.items():
            if not await self._limiter.hit(item, kind, key.id, cost=costs[kind]):
                await self._tell(key, request)
                reset, remaining = await self._limiter.get_window_stats(item, kind, key.id)
                wait = max(reset - time.time(), 1.0)
                raise RateLimited(
                    f"Rate limit reached on {kind} per min: Limit {item.amount}, Used {item.amount - remaining}, "
                    f"Requested {costs[kind]}. Please try again in {wait:.0f}s.",
                    kind,
                    wait,
                )
        await self._tell(key, request)

    async def _tell(self, key: Key, request: Request) -> None:
        headers: dict[str, str] = request.state.headers
        for kind, item in self._items.items():
            reset, remaining = await self._limiter.get_window_stats(item, kind, key.id)
            headers[f"x-ratelimit-limit-{kind}"] = str(item.amount)
            headers[f"x-ratelimit-remaining-{kind}"] = str(remaining)
            headers[f"x-ratelimit-reset-{kind}"] = f"{max(reset - time.time(), 0):.3f}s"
