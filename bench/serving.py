"""Start-up and hot load: Tuneport beside stock vLLM, in turn; medians."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

from bench.load import run
from bench.random_adapters import random_adapters
from bench.servers import STOCK, TUNEPORT, Target, stock, tuneport

HOT_LOADS = 7
STARTS = 3


def measure(model: Path, work: Path) -> dict[str, Any]:
    """Measure everything; return it as JSON."""
    with tuneport(model, work / "data") as ours:  # fills both servers' caches: compiled kernels, inspected models
        hot = _hot_load(ours, model, work / "data" / "bench")
    return {"start_up_seconds": _start_up(model, work), "hot_load_seconds": hot}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    starts = {name: statistics.median(seconds) for name, seconds in results["start_up_seconds"].items()}
    hot = results["hot_load_seconds"]
    loaded, warm = (f"{hot[key] * 1000:.0f} ms" for key in ("post_to_first_token", "warm_first_token"))
    return (
        f"Start-up to the first answer: stock {starts[STOCK]:.0f} s, Tuneport {starts[TUNEPORT]:.0f} s, ratio "
        f"{starts[TUNEPORT] / starts[STOCK]:.2f} (medians of {STARTS}).\n"
        f"Hot load, `POST /admin/adapters` (rank 16, all linear layers) to the first token: {loaded}; a warm request's "
        f"first token: {warm}; ratio {hot['post_to_first_token'] / hot['warm_first_token']:.1f}."
    )


def _hot_load(target: Target, model: Path, work: Path) -> dict[str, float]:
    """Seconds from `POST /admin/adapters` to the first token, and from a warm request to its first token."""
    cold: list[float] = []
    warm: list[float] = []
    for number, folder in enumerate(random_adapters(model, work, HOT_LOADS, rank=16)):
        name = f"ft:bench:{number}"
        started = time.perf_counter()
        target.register(name, folder)
        registered = time.perf_counter() - started
        cold.append(registered + asyncio.run(run(target, [name], 1, 1, 2 * number)).first_token_seconds)
        warm.append(asyncio.run(run(target, [name], 1, 1, 2 * number + 1)).first_token_seconds)
    return {"post_to_first_token": statistics.median(cold), "warm_first_token": statistics.median(warm)}


def _start_up(model: Path, work: Path) -> dict[str, list[float]]:
    """Seconds from each process's start to its first answer, the two servers in turn."""
    seconds: dict[str, list[float]] = {STOCK: [], TUNEPORT: []}
    for _ in range(STARTS):
        for server in (stock(model, work / "stock.log"), tuneport(model, work / "data")):
            with server as target:
                seconds[target.name].append(target.started_seconds)
                print(f"{target.name} answered after {target.started_seconds:.0f} s", flush=True)
    return seconds
