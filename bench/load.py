"""Streaming load: N clients, each one request after the other; tokens a second and time to first token."""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from bench.servers import Target

MAX_TOKENS = 48


@dataclass(frozen=True)
class Figures:
    """Of one round: generated tokens a second of all clients, and median seconds to the first token."""

    tokens_per_second: float
    first_token_seconds: float


async def run(target: Target, models: Sequence[str], clients: int, requests: int, round_number: int) -> Figures:
    """Send `requests` streamed chats from `clients` clients, over `models` in turn; no two prompts are equal."""
    queue = list(range(requests))
    first: list[float] = []
    tokens = 0
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    headers = {"Authorization": f"Bearer {target.api_key}"}
    async with httpx.AsyncClient(headers=headers, timeout=600, limits=limits) as http:

        async def client() -> None:
            nonlocal tokens
            while queue:
                number = queue.pop()
                body = {
                    "model": models[number % len(models)],
                    "messages": [
                        {"role": "user", "content": f"{round_number}.{number}: tell me a long story of the sea."}
                    ],
                    "max_tokens": MAX_TOKENS,
                    "temperature": 0,
                    "stream": True,
                    "stream_options": {"include_usage": True},
                }
                sent = time.perf_counter()
                started = False
                async with http.stream("POST", f"{target.base_url}/chat/completions", json=body) as response:
                    response.raise_for_status()
                    async for line in response.aiter_lines():
                        if (
                            not started
                            and '"content"' in line
                            and '"content": ""' not in line
                            and '"content":""' not in line
                        ):
                            first.append(time.perf_counter() - sent)
                            started = True
                        if '"completion_tokens"' in line:
                            tokens += json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"]

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        seconds = time.perf_counter() - began
    return Figures(tokens / seconds, statistics.median(first))
