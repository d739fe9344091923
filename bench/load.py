"""Streaming load: N clients, each with one request at a time; tokens a second, time to first token, gaps."""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from bench.servers import Target

MAX_TOKENS = 48


@dataclass
class Stream:
    """One answer as its client saw it: model, seconds to the first token, seconds between tokens, number of tokens."""

    model: str
    first_token_seconds: float = 0.0
    gaps_seconds: list[float] = field(default_factory=list)
    tokens: int = 0


@dataclass(frozen=True)
class Figures:
    """A round's results: tokens a second of all clients, median seconds to the first token, and every stream."""

    tokens_per_second: float
    first_token_seconds: float
    streams: list[Stream]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def run(
    target: Target,
    models: Sequence[str],
    clients: int,
    requests: int,
    round_number: int,
    *,
    max_tokens: int = MAX_TOKENS,
) -> Figures:
    """Send `requests` streamed chats from `clients` clients to `models` in turn; all prompts differ."""
    queue = list(range(requests))
    streams: list[Stream] = []
    async with connect(target, clients) as http:

        async def client() -> None:
            while queue:
                number = queue.pop()
                prompt = f"{round_number}.{number}: tell me a long story of the sea."
                streams.append(await chat(http, models[number % len(models)], prompt, max_tokens))

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        seconds = time.perf_counter() - began
    return Figures(
        sum(stream.tokens for stream in streams) / seconds,
        statistics.median(stream.first_token_seconds for stream in streams),
        streams,
    )


def connect(target: Target, clients: int) -> httpx.AsyncClient:
    """An HTTP client with a connection for each of `clients`."""
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    headers = {"Authorization": f"Bearer {target.api_key}"}
    return httpx.AsyncClient(base_url=target.base_url, headers=headers, timeout=900, limits=limits)


async def chat(http: httpx.AsyncClient, model: str, prompt: str, max_tokens: int) -> Stream:
    """Send one streamed chat with greedy sampling."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    stream = Stream(model)
    last = sent = time.perf_counter()
    async with http.stream("POST", "/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if '"content"' in line and '"content": ""' not in line and '"content":""' not in line:
                now = time.perf_counter()
                if stream.first_token_seconds:
                    stream.gaps_seconds.append(now - last)
                else:
                    stream.first_token_seconds = now - sent
                last = now
            if '"completion_tokens"' in line:
                stream.tokens = json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"]
    return stream
