"""The front end alone: Tuneport's API process beside vLLM's, each with an engine that has the same settings.

Keys, metrics and limits are on. CPU seconds are the API process's, per streamed token. Each idle connection has sent
one request and is kept open.
"""

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.load import Figures, percentile, run
from bench.servers import STOCK, TUNEPORT, Target, stock, tuneport

ROUNDS = 3
PAUSE_SECONDS = 2
CLIENTS = {1: 4, 16: 32, 64: 64, 256: 256}  # -> requests a round
IDLE = 1000
IDLE_SECONDS = 10
BESIDE_IDLE = 16  # clients that stream while idle ones are connected
NEVER_REACHED = "10000000"  # requests and tokens per minute: counted all the same
LIMITS = {"requests_per_minute": NEVER_REACHED, "tokens_per_minute": NEVER_REACHED}


def measure(model: Path, work: Path) -> dict[str, Any]:
    """Measure everything; return it as JSON."""
    log = work / "stock.log"
    with stock(model, log, our_engine=True) as theirs, tuneport(model, work / "data", **LIMITS) as ours:
        rows = [_row(clients, (theirs, ours)) for clients in CLIENTS]
        idle = {target.name: asyncio.run(_idle(target)) for target in (theirs, ours)}
    return {"rows": rows, "idle": idle}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| streamed, 48 tokens | API process's CPU a token, vLLM | Tuneport | ratio | tok/s, vLLM | Tuneport | ratio | "
        "TTFT p50, vLLM | Tuneport | ratio | TTFT p99, vLLM | Tuneport | ratio |",
        "|" + "---|" * 13,
    ]
    for row in results["rows"]:
        cells = [f"{row['clients']} clients"]
        for key, unit, scale in (
            ("cpu_seconds_a_token", " us", 1e6),
            ("tokens_per_second", "", 1),
            ("first_p50_seconds", " ms", 1e3),
            ("first_p99_seconds", " ms", 1e3),
        ):
            theirs, ours = row[STOCK][key], row[TUNEPORT][key]
            cells += [f"{theirs * scale:.0f}{unit}", f"{ours * scale:.0f}{unit}", f"**{ours / theirs:.2f}**"]
        lines.append("| " + " | ".join(cells) + " |")
    for name, idle in results["idle"].items():
        lines.append(
            f"\n{name} with {IDLE} idle connections: {idle['idle_cpu_share']:.1%} of a core while nothing is asked; "
            f"{BESIDE_IDLE} clients beside them get {idle['with']:.0f} tokens a second, {idle['without']:.0f} without."
        )
    return "\n".join(lines)


def _row(clients: int, targets: tuple[Target, Target]) -> dict[str, Any]:
    rounds: dict[str, list[dict[str, float]]] = {target.name: [] for target in targets}
    for number in range(ROUNDS + 1):  # the first, a short one, warms up
        for target in targets if number % 2 else targets[::-1]:
            time.sleep(PAUSE_SECONDS)
            figures = _figures(target, clients, CLIENTS[clients] if number else min(clients, 8), number)
            if number:
                rounds[target.name].append(figures)
    row: dict[str, Any] = {"clients": clients}
    for name, figures in rounds.items():
        row[name] = {key: statistics.median(one[key] for one in figures) for key in figures[0]}
        row[name]["lowest"] = min(one["tokens_per_second"] for one in figures)
        row[name]["highest"] = max(one["tokens_per_second"] for one in figures)
    print(json.dumps(row), flush=True)
    return row


def _figures(target: Target, clients: int, requests: int, number: int) -> dict[str, float]:
    before = _cpu_seconds(target)
    figures: Figures = asyncio.run(run(target, [target.model], clients, requests, number))
    first = [stream.first_token_seconds for stream in figures.streams]
    return {
        "cpu_seconds_a_token": (_cpu_seconds(target) - before) / sum(stream.tokens for stream in figures.streams),
        "tokens_per_second": figures.tokens_per_second,
        "first_p50_seconds": percentile(first, 0.5),
        "first_p99_seconds": percentile(first, 0.99),
    }


async def _idle(target: Target) -> dict[str, float]:
    limits = httpx.Limits(max_connections=IDLE, max_keepalive_connections=IDLE, keepalive_expiry=600)
    headers = {"Authorization": f"Bearer {target.api_key}"}
    url = f"{target.base_url}/models"
    without = [await _rate(target, number) for number in range(ROUNDS)]
    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=120) as http:
        held = [http.stream("GET", url) for _ in range(IDLE)]
        answers = await asyncio.gather(*(one.__aenter__() for one in held))  # at once, so each has a connection
        await asyncio.gather(*(answer.aread() for answer in answers))
        await asyncio.gather(*(one.__aexit__(None, None, None) for one in held))
        before = _cpu_seconds(target)
        await asyncio.sleep(IDLE_SECONDS)
        share = (_cpu_seconds(target) - before) / IDLE_SECONDS
        beside = [await _rate(target, ROUNDS + number) for number in range(ROUNDS)]
    return {
        "idle_cpu_share": share,
        "without": statistics.median(without),
        "with": statistics.median(beside),
    }


async def _rate(target: Target, number: int) -> float:
    figures = await run(target, [target.model], BESIDE_IDLE, 2 * BESIDE_IDLE, 100 + number)
    return figures.tokens_per_second


def _cpu_seconds(target: Target) -> float:
    times = psutil.Process(target.pid).cpu_times()
    return times.user + times.system
