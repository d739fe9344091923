"""Training beside plain TRL: the same rows, seed, steps and LoRA, one process at a time, in turn; medians.

Our trainer runs twice: as a new process, and forked by the spawner with its imports done, as a server has it.

Tokens a second are from the beginning of the second step to the end of the last; the start is from the process's start
to the beginning of the first step. Ours runs without replay, and its evaluation after the last step does not count.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from demo.tasks import TICKETS
from training import defaults
from training.directory import TRAINER, JobDirectory, read_lines
from training.job import Supervised, SupervisedHyperparameters, TrainingJob
from training.methods.models import warmup_steps

ROUNDS = 3
ROWS = 96
HELD_OUT = 8
BATCH = 8
MULTIPLIER = 1.0
SEED = 3
LAST = 4  # the mean loss of so many last steps is the final loss
OURS = "tuneport"
WARM = "tuneport, by the trainer that a server keeps waiting"
KINDS = ("trl default", "trl best", OURS, WARM)


def measure(model: Path, work: Path) -> dict[str, Any]:
    """Measure everything; return it as JSON."""
    train, held_out = TICKETS.rows(ROWS, HELD_OUT)
    (work / "rows.jsonl").write_text("".join(row.jsonl() + "\n" for row in train))
    (work / "held_out.jsonl").write_text("".join(row.jsonl() + "\n" for row in held_out))
    pairs = [json.loads(row.jsonl())["messages"] for row in train]
    (work / "pairs.jsonl").write_text(
        "".join(json.dumps({"prompt": row[:-1], "completion": row[-1:]}) + "\n" for row in pairs)
    )
    results: dict[str, Any] = {kind: [] for kind in KINDS}
    for number in range(ROUNDS):
        for kind in KINDS:
            folder = work / f"{kind.replace(' ', '-')}-{number}"
            folder.mkdir()
            if kind in (OURS, WARM):
                one = _ours(model, work, folder, warm=kind == WARM)
            else:
                one = _trl(kind.partition(" ")[2], model, work, folder)
            results[kind].append(one)
            print(kind, one, flush=True)
    return results


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    median = {
        kind: {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        for kind, rounds in results.items()
    }
    lines = [
        f"| {ROWS} rows, batch {BATCH}, {ROWS // BATCH} steps | tokens/s | Tuneport to it | start to first step | "
        "Tuneport to it | the waiting trainer to it | peak memory | final loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, one in median.items():
        spread = [run["tokens_per_second"] for run in results[kind]]
        speed, start, waited = "", "", ""
        if kind not in (OURS, WARM):
            speed = f"**{median[OURS]['tokens_per_second'] / one['tokens_per_second']:.2f}**"
            start = f"**{median[OURS]['start_seconds'] / one['start_seconds']:.2f}**"
            waited = f"**{median[WARM]['start_seconds'] / one['start_seconds']:.2f}**"
        lines.append(
            f"| {kind} | {one['tokens_per_second']:.0f} ({min(spread):.0f}-{max(spread):.0f}) | {speed} | "
            f"{one['start_seconds']:.1f} s | {start} | {waited} | {one['peak_bytes'] / 1024**3:.2f} GB | "
            f"{one['final_loss']:.4f} |"
        )
    return "\n".join(lines)


def _trl(kind: str, model: Path, work: Path, folder: Path) -> dict[str, float]:
    resolved = _resolved()
    order = {
        "model": str(model),
        "rows": str(work / "pairs.jsonl"),
        "output": str(folder),
        "batch_size": BATCH,
        "learning_rate": resolved.learning_rate,
        "warmup_steps": warmup_steps(ROWS, resolved),
        "seed": SEED,
    }
    (folder / "order.json").write_text(json.dumps(order))
    started = time.time()
    run = subprocess.run(
        [sys.executable, "-m", "bench.plain_trl", kind, str(folder / "order.json")],
        check=True,
        capture_output=True,
        text=True,
    )
    record = json.loads(run.stdout.splitlines()[-1])
    times: list[float] = record["times"]
    steps = len(times) - 1
    return {
        "tokens_per_second": record["tokens"] * (steps - 1) / steps / (times[-1] - times[1]),
        "start_seconds": times[0] - started,
        "peak_bytes": record["peak_bytes"],
        "final_loss": statistics.fmean(record["losses"][-LAST:]),
    }


def _ours(model: Path, work: Path, folder: Path, *, warm: bool) -> dict[str, float]:
    job = TrainingJob(
        id="ftjob-bench",
        base_model=model.name,
        base_path=model.absolute(),
        training_file=work / "rows.jsonl",
        validation_file=work / "held_out.jsonl",
        method=Supervised(hyperparameters=_hyperparameters()),
        seed=SEED,
    )
    directory = JobDirectory.create(folder / "job", job)
    begun, peak = 0.0, 0
    with (folder / "log").open("wb") as log:
        command = [*TRAINER, "--wait" if warm else str(directory.description)]
        started = time.time()
        process = psutil.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        trainer: psutil.Process = process
        if warm:
            _until_idle(process)
            started = time.time()
            order = {"id": 0, "job": str(directory.description), "environment": {}}
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
            trainer = psutil.Process(json.loads(process.stdout.readline())["pid"])
        while _runs(trainer):
            if not begun and any("Training started" in event["message"] for event in directory.events()):
                begun = time.time()
            if not any("Comparing" in event["message"] for event in directory.events()):
                peak = max(peak, _resident_bytes(trainer))
            time.sleep(0.05)
        process.stdin.close()
        process.wait()
    tokens = json.loads(directory.data_report.read_text())["tokens"]["total"]
    steps = [line for line in read_lines(directory.metrics_file) if "train_loss" in line]
    return {
        "tokens_per_second": tokens * (len(steps) - 1) / len(steps) / (steps[-1]["time"] - steps[0]["time"]),
        "start_seconds": begun - started,
        "peak_bytes": peak,
        "final_loss": statistics.fmean(step["train_loss"] for step in steps[-LAST:]),
    }


def _runs(trainer: psutil.Process) -> bool:
    try:
        return trainer.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _resident_bytes(trainer: psutil.Process) -> int:
    try:
        return trainer.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def _until_idle(process: psutil.Popen) -> None:
    before = -1.0
    while (now := sum(process.cpu_times()[:2])) > before + 0.01:
        before = now
        time.sleep(1)


def _hyperparameters() -> SupervisedHyperparameters:
    return SupervisedHyperparameters(n_epochs=1, batch_size=BATCH, learning_rate_multiplier=MULTIPLIER, replay_share=0)


def _resolved() -> defaults.Resolved:
    return defaults.resolve(Supervised(hyperparameters=_hyperparameters()), rows=ROWS, hidden_size=576)
