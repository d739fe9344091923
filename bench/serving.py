"""Base-model streaming, hot load and start-up: Tuneport beside stock vLLM, interleaved, medians of several rounds."""

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

import httpx

from bench.load import Figures, run
from bench.servers import Target, stock, tuneport
from tests.conftest import noise_adapter

ROUNDS = 3
CLIENTS = {1: 4, 16: 48, 64: 128}  # clients -> requests a round
HOT_LOADS = 7
STARTS = 3


def throughput(targets: tuple[Target, Target]) -> list[dict[str, Any]]:
    """A row for each number of clients, with both servers' medians and spread."""
    rows: list[dict[str, Any]] = []
    for clients, requests in CLIENTS.items():
        figures: dict[str, list[Figures]] = {target.name: [] for target in targets}
        for round_number in range(ROUNDS + 1):  # the first warms up
            for target in targets:
                result = asyncio.run(run(target, [target.model], clients, requests, round_number))
                if round_number:
                    figures[target.name].append(result)
        rows.append({"clients": clients, **{name: _summary(rounds) for name, rounds in figures.items()}})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def hot_load(target: Target, model: Path, work: Path) -> dict[str, float]:
    """Seconds from `POST /admin/adapters` to the first token, beside a warm request's to its first token."""
    from adapters.base import BaseModel

    make = noise_adapter(_Folders(work))
    base = BaseModel.read(model)
    admin = httpx.Client(
        base_url=target.base_url.removesuffix("/v1"), headers={"Authorization": f"Bearer {target.api_key}"}
    )
    modules = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    cold: list[float] = []
    warm: list[float] = []
    for number in range(HOT_LOADS):
        folder = make(base, seed=number, rank=16, modules=modules)
        name = f"ft:bench:{number}"
        started = time.perf_counter()
        body = {"name": name, "path": str(folder.absolute())}
        admin.post("/admin/adapters", json=body).raise_for_status()
        registered = time.perf_counter() - started
        cold.append(registered + asyncio.run(run(target, [name], 1, 1, 2 * number)).first_token_seconds)
        warm.append(asyncio.run(run(target, [name], 1, 1, 2 * number + 1)).first_token_seconds)
    return {"post_to_first_token": statistics.median(cold), "warm_first_token": statistics.median(warm)}


def start_up(model: Path, work: Path) -> dict[str, list[float]]:
    """Seconds from the process's start to its first answer, in turn."""
    seconds: dict[str, list[float]] = {"stock vLLM": [], "tuneport": []}
    for _ in range(STARTS):
        for server in (stock(model, work / "stock.log"), tuneport(model, work / "data")):
            with server as target:
                seconds[target.name].append(target.started_seconds)
                print(f"{target.name} answered after {target.started_seconds:.0f} s", flush=True)
    return seconds


def measure(model: Path, work: Path) -> dict[str, Any]:
    """Everything, as JSON."""
    starts = start_up(model, work)
    with stock(model, work / "stock.log") as theirs, tuneport(model, work / "data") as ours:
        rows = throughput((theirs, ours))
        hot = hot_load(ours, model, work / "data")
    return {"start_up_seconds": starts, "throughput": rows, "hot_load_seconds": hot}


def _summary(rounds: list[Figures]) -> dict[str, float]:
    rates = [figures.tokens_per_second for figures in rounds]
    return {
        "tokens_per_second": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "first_token_seconds": statistics.median(figures.first_token_seconds for figures in rounds),
    }


class _Folders:
    """Makes new folders under one."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0

    def mktemp(self, basename: str) -> Path:
        """A new folder."""
        self._count += 1
        path = self._root / f"{basename}-{time.time_ns()}-{self._count}"
        path.mkdir(parents=True)
        return path
