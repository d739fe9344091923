"""Adapters under load: Tuneport beside stock vLLM on the same weights, in alternating rounds; medians."""

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

from bench.load import Figures, run
from bench.random_adapters import random_adapters
from bench.servers import MAX_LORAS, STOCK, TUNEPORT, Target, stock, tuneport

ROUNDS = 3
PAUSE_SECONDS = 2  # stock vLLM's worker spins on a core for a second after its last step
RANK = 8
ADAPTERS = 16
REQUESTS = {1: 2, 4: 4, 16: 16, 64: 64}  # clients -> requests a round
TARGETS = {  # (workload, clients) -> wanted ratio to stock's throughput
    ("base", 1): 1.0,
    ("base", 16): 1.4,
    ("base", 64): 1.8,
    ("1 adapter", 1): 2.0,
    ("1 adapter", 16): 3.8,
    ("1 adapter", 64): 5.3,
    ("base + 3 adapters", 4): 2.0,
    ("base + 3 adapters", 16): 2.5,
    ("base + 3 adapters", 64): 4.5,
}


def measure(model: Path, work: Path) -> dict[str, Any]:
    """Measure; return rows of medians and ranges, as JSON."""
    with stock(model, work / "stock.log") as theirs, tuneport(model, work / "data") as ours:
        names = [f"ft:bench:{number}" for number in range(ADAPTERS)]
        folders = random_adapters(model, work / "data" / "bench", ADAPTERS, rank=RANK)
        for target in (theirs, ours):
            for name, folder in zip(names, folders, strict=True):
                target.register(name, folder)
        base = model.name
        workloads = {
            "base": [base],
            "1 adapter": names[:1],
            "base + 3 adapters": [base, *names[:3]],
            f"16 adapters, {MAX_LORAS} slots": names,
        }
        return {"rows": [_row(w, c, m, (theirs, ours)) for w, m in workloads.items() for c in REQUESTS]}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown; brackets hold the lowest and the highest value of the rounds."""
    lines = [
        "| streamed, 48 tokens | clients | stock vLLM tok/s | Tuneport tok/s | ratio | asked for | share of own base | "
        "stock TTFT p50 | Tuneport TTFT p50 | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    own_base = {
        row["clients"]: row[TUNEPORT]["tokens_per_second"] for row in results["rows"] if row["workload"] == "base"
    }
    for row in results["rows"]:
        stock, ours = row[STOCK], row[TUNEPORT]
        rates = [f"{s['tokens_per_second']:.0f} ({s['lowest']:.0f}-{s['highest']:.0f})" for s in (stock, ours)]
        ratio = ours["tokens_per_second"] / stock["tokens_per_second"]
        asked = TARGETS.get((row["workload"], row["clients"]), "")
        share = f"{ours['tokens_per_second'] / own_base[row['clients']]:.2f}"
        first = [f"{s['first_token_seconds'] * 1000:.0f} ms" for s in (stock, ours)]
        first_ratio = ours["first_token_seconds"] / stock["first_token_seconds"]
        lines.append(
            f"| {row['workload']} | {row['clients']} | {rates[0]} | {rates[1]} | **{ratio:.2f}** | {asked} | {share} | "
            f"{first[0]} | {first[1]} | {first_ratio:.2f} |"
        )
    return "\n".join(lines)


def _row(workload: str, clients: int, models: list[str], targets: tuple[Target, Target]) -> dict[str, Any]:
    rounds: dict[str, list[Figures]] = {target.name: [] for target in targets}
    for number in range(ROUNDS + 1):  # the first, a short one, warms up
        for target in targets:
            time.sleep(PAUSE_SECONDS)
            requests = REQUESTS[clients] if number else len(models)
            figures = asyncio.run(run(target, models, clients, requests, number))
            if number:
                rounds[target.name].append(figures)
    row: dict[str, Any] = {"workload": workload, "clients": clients}
    for name, figures in rounds.items():
        rates = [one.tokens_per_second for one in figures]
        row[name] = {
            "tokens_per_second": statistics.median(rates),
            "lowest": min(rates),
            "highest": max(rates),
            "first_token_seconds": statistics.median(one.first_token_seconds for one in figures),
        }
    print(json.dumps(row), flush=True)
    return row
