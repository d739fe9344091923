"""`make bench`: measure, write bench/results/serving.json and the table in docs/performance.md."""

import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench import serving
from demo.base import prepare

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "serving.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- serving: begin -->", "<!-- serving: end -->"


def main() -> None:
    """Measure and write."""
    with tempfile.TemporaryDirectory() as work:
        results = serving.measure(prepare(Path("var/models")), Path(work))
    results["cores"] = len(os.sched_getaffinity(0))
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{table(results)}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    print(table(results))


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| base model, streamed | stock vLLM tok/s | Tuneport tok/s | ratio | stock TTFT p50 | Tuneport TTFT p50 |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["throughput"]:
        stock, ours = row["stock vLLM"], row["tuneport"]
        rates = [f"{s['tokens_per_second']:.0f} ({s['lowest']:.0f}-{s['highest']:.0f})" for s in (stock, ours)]
        first = [f"{s['first_token_seconds'] * 1000:.0f} ms" for s in (stock, ours)]
        ratio = ours["tokens_per_second"] / stock["tokens_per_second"]
        lines.append(
            f"| {row['clients']} at a time | {rates[0]} | {rates[1]} | {ratio:.2f} | {first[0]} | {first[1]} |"
        )
    starts = {name: statistics.median(seconds) for name, seconds in results["start_up_seconds"].items()}
    hot = results["hot_load_seconds"]
    loaded, warm = (f"{hot[key] * 1000:.0f} ms" for key in ("post_to_first_token", "warm_first_token"))
    lines += [
        "",
        f"Start-up to the first answer: stock {starts['stock vLLM']:.0f} s, Tuneport {starts['tuneport']:.0f} s, ratio "
        f"{starts['tuneport'] / starts['stock vLLM']:.2f} (medians of {len(results['start_up_seconds']['tuneport'])}).",
        f"Hot load, `POST /admin/adapters` (rank 16, all linear layers) to the first token: {loaded}; a warm request's "
        f"first token: {warm}; ratio {hot['post_to_first_token'] / hot['warm_first_token']:.1f}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
