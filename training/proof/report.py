"""The job's report, as Markdown and as one HTML file without scripts: the main result, then the details."""

import os
import platform
import shlex
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from adapters.manifest import Manifest
from training.data.findings import DataReport, literal
from training.data.rows import Row
from training.directory import JobDirectory, read_lines
from training.job import Result, TrainingJob
from training.proof.curves import panels
from training.proof.evaluation import Evaluation
from training.proof.split import Parts
from training.proof.statistics import Comparison
from training.render import thinking

ARMS = {"base": "base", "incumbent": "incumbent", "tuned": "fine-tuned"}


@dataclass(frozen=True)
class Bar:
    """An arm's mean score by one grader; the places of the mean and its 95 % interval in percent of the scale."""

    arm: str
    mean: float
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Graded:
    """One grader's results: a bar per arm, the ends of the scale, and the comparisons."""

    grader: str
    bars: list[Bar]
    lowest: float
    highest: float
    comparisons: list[Comparison]


def write(
    directory: JobDirectory,
    job: TrainingJob,
    data: DataReport,
    evaluation: Evaluation,
    result: Result,
    parts: Parts[Row],
) -> None:
    """Write `report.html` and `report.md` into the job's directory."""
    environment = Environment(
        loader=PackageLoader("training.proof"),
        autoescape=select_autoescape(["html.jinja"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["literal"] = literal
    values: dict[str, Any] = {
        "job": job,
        "data": data,
        "evaluation": evaluation,
        "result": result,
        "graded": graded(evaluation),
        "run": _run(directory, job, data, result, parts),
        "alike": parts.alike,
        "arms": ARMS,
        "panels": panels(read_lines(directory.metrics_file)),
        "again": shlex.join(["tuneport", "repeat", str(directory.path)]),
    }
    for path, template in (
        (directory.report_html, "report.html.jinja"),
        (directory.report_markdown, "report.md.jinja"),
    ):
        path.write_text(environment.get_template(template).render(values), encoding="utf-8")


def graded(evaluation: Evaluation) -> list[Graded]:
    """The results by grader."""
    found: list[Graded] = []
    for base in evaluation.comparisons:
        other = next((one for one in evaluation.incumbent if one.grader == base.grader), None)
        means = {"base": (base.base, base.base_low, base.base_high)}
        if other is not None:
            means["incumbent"] = (other.base, other.base_low, other.base_high)
        means["tuned"] = (base.tuned, base.tuned_low, base.tuned_high)
        lowest, highest = min(0.0, *(one[1] for one in means.values())), max(1.0, *(one[2] for one in means.values()))

        def place(score: float, lowest: float = lowest, highest: float = highest) -> float:
            return round(100 * (score - lowest) / (highest - lowest), 2)

        bars = [Bar(ARMS[arm], mean, place(mean), place(low), place(high)) for arm, (mean, low, high) in means.items()]
        found.append(Graded(base.grader, bars, lowest, highest, [other, base] if other else [base]))
    return found


def _run(
    directory: JobDirectory, job: TrainingJob, data: DataReport, result: Result, parts: Parts[Row]
) -> dict[str, str]:
    events = directory.events()
    seconds = time.time() - events[0]["created_at"] if events else 0.0
    hyperparameters = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in result.hyperparameters.items()
    )
    rows = (
        f"{len(parts.train)} trained on, {len(parts.selection)} chose the checkpoint, {len(parts.proof)} prove; "
        f"drawn by seed {job.seed}"
    )
    run = {
        "Method": job.method.type,
        "Base model": job.base_model,
        "Trained on from": job.incumbent_name if job.parent and job.parent == job.incumbent else "",
        "Had to beat": job.incumbent_name or "the base",
        "Training file": f"{job.training_file.name}, {data.rows} rows",
        "Validation file": job.validation_file.name if job.validation_file else "none: held out of the training file",
        "Rows": rows,
        "Thinking": thinking(Manifest.read(directory.adapter).chat_template or "") or "",
        "Tokens trained": f"{result.trained_tokens:,}",
        "Hyperparameters": hyperparameters,
        "Best step": f"{result.best_step}, by the rows that choose it",
        "Time": f"{seconds / 60:.1f} minutes, pauses included",
        "Machine": _machine(),
        "Software": ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft")),
    }
    return {name: value for name, value in run.items() if value}


def _machine() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores, no GPU"
