"""Proofs that the benches measure."""

from collections import Counter
from pathlib import Path
from typing import Any

from bench import durability, many, memory
from bench.servers import TUNEPORT
from tests import stalls


def test_durability(figures: dict[str, Any], smollm2: Path, tmp_path: Path) -> None:
    results = durability.measure(smollm2, tmp_path)
    for victim, one in results.items():
        figures[f"{victim} killed"] = one
        assert one["kills"] == durability.KILLS == 20
        assert one["succeeded"] == one["same"] == one["jobs"]
        assert one["twice"] == 0


def test_stalls(figures: dict[str, Any], smollm2: Path, tmp_path: Path) -> None:
    silences = stalls.measure(smollm2, tmp_path, 2_000, seed=1)
    figures["answers by status"] = dict(Counter(str(one.status) for one in silences))
    figures["longest waits, seconds"] = {one.body: round(one.seconds, 3) for one in silences[:5]}
    assert silences[0].seconds < stalls.PERCEPTIBLE_SECONDS
    assert not [one for one in silences if one.status >= 500]


def test_adapters(figures: dict[str, Any], smollm2: Path, tmp_path: Path) -> None:
    results = many.measure(smollm2, tmp_path)
    for workload, one in results[TUNEPORT].items():
        figures[workload] = {key: round(value, 2) for key, value in one.items()}
        assert one["rare_first_token_p99"] <= 4 * one["first_token_p50"]
    figures["list of models, seconds"] = round(results["list_seconds"], 4)
    assert results["list_seconds"] < 0.05


def test_soak(figures: dict[str, Any], smollm2: Path, tmp_path: Path) -> None:
    memory_bytes = memory.measure(smollm2, tmp_path)["memory_bytes"]
    figures["resident MB after cycles"] = {cycle: round(size / 1024**2, 1) for cycle, size in memory_bytes.items()}
    assert max(memory_bytes) == memory.CYCLES == 10_000
    assert memory_bytes[memory.CYCLES] - memory_bytes[1_000] < 10 * 1024**2
