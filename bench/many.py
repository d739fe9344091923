"""1,000 adapters over 4 slots: zipf and uniform traffic beside stock vLLM, waits for rare adapters, list times."""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.load import chat, connect, percentile
from bench.random_adapters import random_adapters
from bench.servers import MAX_LORAS, STOCK, TUNEPORT, Target, stock, tuneport

ADAPTERS = 1000
CLIENTS = 64
REQUESTS = 128
TOKENS = 16
MODULES = ("q_proj", "v_proj")


def measure(model: Path, work: Path) -> dict[str, Any]:
    """Measure traffic on both servers in turn, then the list of models on ours."""
    names = [f"ft:bench:many:{number}" for number in range(ADAPTERS)]
    folders = random_adapters(model, work / "data" / "bench", ADAPTERS, rank=8, modules=MODULES)
    results: dict[str, Any] = {}
    for server in (stock(model, work / "stock.log"), tuneport(model, work / "data")):
        with server as target:
            for name, folder in zip(names, folders, strict=True):
                target.register(name, folder)
            results[target.name] = {
                "all resident": asyncio.run(_traffic(target, _uniform(names[:MAX_LORAS]))),
                "zipf": asyncio.run(_traffic(target, _zipf(names))),
                "uniform": asyncio.run(_traffic(target, _uniform(names))),
            }
            print(target.name, results[target.name], flush=True)
            if target.name == TUNEPORT:
                results["list_seconds"] = _list_seconds(target)
    return results


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"| {ADAPTERS} adapters, {MAX_LORAS} slots, {CLIENTS} clients | stock tok/s | Tuneport tok/s | ratio | stock "
        "TTFT p50 | Tuneport TTFT p50 | Tuneport TTFT p99 | rarest tenth's p99 to the median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for workload, ours in results[TUNEPORT].items():
        theirs = results[STOCK][workload]
        rare = f"{ours['rare_first_token_p99'] / ours['first_token_p50']:.1f}"
        lines.append(
            f"| {workload} | {theirs['tokens_per_second']:.0f} | {ours['tokens_per_second']:.0f} | "
            f"**{ours['tokens_per_second'] / theirs['tokens_per_second']:.2f}** | {theirs['first_token_p50']:.1f} s | "
            f"{ours['first_token_p50']:.1f} s | {ours['first_token_p99']:.1f} s | {rare} (asked for: 4) |"
        )
    lines += [
        "",
        f"`GET /v1/models` with {ADAPTERS} adapters: {results['list_seconds'] * 1000:.0f} ms (asked for: 50).",
    ]
    return "\n".join(lines)


def _zipf(names: Sequence[str]) -> list[str]:
    weights = [1 / (rank + 1) for rank in range(len(names))]
    return random.Random(0).choices(names, weights, k=REQUESTS)


def _uniform(names: Sequence[str]) -> list[str]:
    return random.Random(0).choices(names, k=REQUESTS)


async def _traffic(target: Target, wanted: list[str]) -> dict[str, float]:
    """Measure one workload; any error ends the benchmark."""
    queue = list(enumerate(wanted))
    waits: dict[str, list[float]] = {}
    tokens = 0
    async with connect(target, CLIENTS) as http:

        async def client() -> None:
            nonlocal tokens
            while queue:
                number, name = queue.pop()
                stream = await chat(http, name, f"{number}: tell me a story.", TOKENS)
                waits.setdefault(name, []).append(stream.first_token_seconds)
                tokens += stream.tokens

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        seconds = time.perf_counter() - began
    rarest_first = sorted(waits, key=lambda name: len(waits[name]))
    rare = [wait for name in rarest_first for wait in waits[name]][: max(1, REQUESTS // 10)]
    every = [wait for of_one in waits.values() for wait in of_one]
    return {
        "tokens_per_second": tokens / seconds,
        "first_token_p50": statistics.median(every),
        "first_token_p99": percentile(every, 0.99),
        "rare_first_token_p99": percentile(rare, 0.99),
    }


def _list_seconds(target: Target) -> float:
    with httpx.Client(base_url=target.base_url, headers={"Authorization": f"Bearer {target.api_key}"}) as http:
        seconds: list[float] = []
        for _ in range(20):
            began = time.perf_counter()
            assert len(http.get("/models").json()["data"]) == ADAPTERS + 2  # and the base, and the embedding model
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
