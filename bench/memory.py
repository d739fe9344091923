"""Memory over ten thousand cycles, in each of which loading one adapter evicts another."""

import asyncio
from pathlib import Path
from typing import Any

import psutil

from bench.load import connect
from bench.random_adapters import random_adapters
from bench.servers import MAX_CPU_LORAS, Target, tuneport

ADAPTERS = 2 * MAX_CPU_LORAS  # asked for in turn, so that each has been evicted before it is asked again
CYCLES = 10_000
SEEN = (1_000, 2_000, 5_000, CYCLES)


def measure(model: Path, work: Path) -> dict[str, Any]:
    """Measure bytes of memory of server and engine, by number of cycles."""
    with tuneport(model, work / "data") as target:
        names = [f"ft:bench:memory:{number}" for number in range(ADAPTERS)]
        for name, folder in zip(names, random_adapters(model, work / "data" / "bench", ADAPTERS, rank=8), strict=True):
            target.register(name, folder)
        return {"memory_bytes": asyncio.run(_cycles(target, names))}


def table(results: dict[str, Any]) -> str:
    """The results as a sentence."""
    figures = [f"{int(cycle):,}: {size / 1024**2:,.1f} MB" for cycle, size in results["memory_bytes"].items()]
    return f"Resident memory of server and engine over load/evict cycles: {', '.join(figures)}."


async def _cycles(target: Target, names: list[str]) -> dict[int, int]:
    memory: dict[int, int] = {}
    root = target.base_url.removesuffix("/v1")
    async with connect(target, 1) as http:
        for cycle in range(CYCLES + 1):
            if cycle in SEEN:
                memory[cycle] = _resident_bytes(target)
            (await http.post(f"{root}/admin/adapters/{names[cycle % len(names)]}/load")).raise_for_status()
    return memory


def _resident_bytes(target: Target) -> int:
    server = psutil.Process(target.pid)
    return sum(process.memory_info().rss for process in (server, *server.children(recursive=True)))
