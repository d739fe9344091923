"""Loading adapters while others stream: gaps between tokens of 16 streams with and without loads, and load times."""

import asyncio
import statistics
from pathlib import Path
from typing import Any

from bench.load import Stream, chat, connect, percentile
from bench.random_adapters import random_adapters
from bench.servers import Target, tuneport

STREAMS = 16
STREAM_TOKENS = 150
LOADS = 100
RANK = 8
PROBE_TOKENS = 4
PAUSE_SECONDS = 0.2
SETTLE_SECONDS = 2.0  # until all streams are running


def measure(model: Path, work: Path) -> dict[str, Any]:
    """Measure twice with the same streams: probes of one loaded adapter, then of 100 that are not loaded."""
    with tuneport(model, work / "data") as target:
        names = [f"ft:bench:hot:{number}" for number in range(LOADS + 1)]
        for name, folder in zip(
            names, random_adapters(model, work / "data" / "bench", LOADS + 1, rank=RANK), strict=True
        ):
            target.register(name, folder)
        asyncio.run(_phase(target, model.name, names[:1] * 3))  # warms up
        warm = asyncio.run(_phase(target, model.name, names[:1] * LOADS))
        cold = asyncio.run(_phase(target, model.name, names[1:]))
    return {"without_loads": warm, "with_loads": cold}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    warm, cold = results["without_loads"], results["with_loads"]
    lines = [
        f"| {STREAMS} streams of the base, {LOADS} requests to adapters beside them | loaded before | loaded by the "
        "request | ratio | asked for |",
        "|---|---|---|---|---|",
    ]
    for key, label, asked in (
        ("gap_p50", "gap between tokens, p50", ""),
        ("gap_p99", "gap between tokens, p99", "1.5"),
        ("first_token_p50", "request to first token, p50", "2"),
        ("first_token_p99", "request to first token, p99", ""),
    ):
        figures = " | ".join(f"{side[key] * 1000:.0f} ms" for side in (warm, cold))
        lines.append(f"| {label} | {figures} | **{cold[key] / warm[key]:.2f}** | {asked} |")
    return "\n".join(lines)


async def _phase(target: Target, base: str, probes: list[str]) -> dict[str, float]:
    streams: list[Stream] = []
    first: list[float] = []
    done = asyncio.Event()
    async with connect(target, STREAMS + 1) as http:

        async def client(number: int) -> None:
            turn = 0
            while not done.is_set():
                turn += 1
                streams.append(await chat(http, base, f"{turn}.{number}: tell me a long story.", STREAM_TOKENS))

        clients = [asyncio.create_task(client(number)) for number in range(STREAMS)]
        await asyncio.sleep(SETTLE_SECONDS)
        for number, name in enumerate(probes):
            probe = await chat(http, name, f"{number}: name a fruit.", PROBE_TOKENS)
            first.append(probe.first_token_seconds)
            await asyncio.sleep(PAUSE_SECONDS)
        done.set()
        await asyncio.gather(*clients)
    gaps = [gap for stream in streams for gap in stream.gaps_seconds]
    return {
        "gap_p50": statistics.median(gaps),
        "gap_p99": percentile(gaps, 0.99),
        "first_token_p50": statistics.median(first),
        "first_token_p99": percentile(first, 0.99),
    }
