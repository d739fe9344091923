"""`make bench`: measure, write bench/results/*.json and the tables in docs/performance.md.

`python -m bench lora hotload` only runs these.
"""

import json
import sys
import tempfile
from pathlib import Path

from bench import durability, frontend, hotload, lora, many, memory, serving, training
from demo.base import prepare

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
BENCHES = {
    "serving": serving,
    "lora": lora,
    "frontend": frontend,
    "hotload": hotload,
    "many": many,
    "memory": memory,
    "training": training,
    "durability": durability,
}


def main(wanted: list[str]) -> None:
    """Measure and write."""
    for name in wanted or BENCHES:
        bench = BENCHES[name]
        with tempfile.TemporaryDirectory() as work:
            results = bench.measure(prepare(Path("var/models")), Path(work))
        text = bench.table(results)
        (ROOT / "bench" / "results" / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
        PAGE.write_text(f"{head}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
