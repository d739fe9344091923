"""The job's report, as Markdown and as one HTML file without scripts: verdict, curves, answers, data, forgetting."""

from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from training.data.findings import DataReport
from training.directory import JobDirectory, read_lines
from training.job import Result, TrainingJob
from training.proof.evaluation import Evaluation

WIDTH, HEIGHT = 600, 200  # of a curve, in its own units; the page scales it
_NAMES = {
    "train_loss": "training loss",
    "full_valid_loss": "validation loss",
    "train_mean_reward": "training reward",
    "full_valid_mean_reward": "validation reward",
    "train_preference_accuracy": "training: prefers the preferred",
    "full_valid_preference_accuracy": "validation: prefers the preferred",
}
_PANELS = (
    ("Loss", ("train_loss", "full_valid_loss")),
    ("Reward", ("train_mean_reward", "full_valid_mean_reward")),
    ("Preference", ("train_preference_accuracy", "full_valid_preference_accuracy")),
)


@dataclass(frozen=True)
class Line:
    """A curve: its name, its points as SVG wants them, and each as (x, y, words)."""

    name: str
    points: str
    marks: list[tuple[float, float, str]]


@dataclass(frozen=True)
class Panel:
    """A set of curves with common axes."""

    title: str
    top: float
    bottom: float
    steps: int
    lines: list[Line]


def write(directory: JobDirectory, job: TrainingJob, data: DataReport, evaluation: Evaluation, result: Result) -> None:
    """Write `report.html` and `report.md` into the job's directory."""
    environment = Environment(
        loader=PackageLoader("training.proof"), autoescape=select_autoescape(["html.jinja"]), trim_blocks=True
    )
    values: dict[str, Any] = {
        "job": job,
        "data": data,
        "evaluation": evaluation,
        "result": result,
        "panels": _panels(read_lines(directory.metrics_file)),
        "width": WIDTH,
        "height": HEIGHT,
    }
    for path, template in (
        (directory.report_html, "report.html.jinja"),
        (directory.report_markdown, "report.md.jinja"),
    ):
        path.write_text(environment.get_template(template).render(values), encoding="utf-8")


def _panels(metrics: list[dict[str, Any]]) -> list[Panel]:
    panels: list[Panel] = []
    for title, names in _PANELS:
        series = {name: [(row["step"], row[name]) for row in metrics if name in row] for name in names}
        values = [value for points in series.values() for _, value in points]
        if not values:
            continue
        bottom, top = min(0.0, *values), max(values)
        steps = max(step for points in series.values() for step, _ in points)
        lines = [_line(_NAMES[name], points, steps, bottom, top) for name, points in series.items() if points]
        panels.append(Panel(title, top, bottom, steps, lines))
    return panels


def _line(name: str, points: list[tuple[int, float]], steps: int, bottom: float, top: float) -> Line:
    marks = [
        (
            round(WIDTH * step / max(1, steps), 1),
            round(HEIGHT * (1 - (value - bottom) / ((top - bottom) or 1)), 1),
            f"{name} {value:.4f} at step {step}",
        )
        for step, value in points
    ]
    return Line(name, " ".join(f"{x},{y}" for x, y, _ in marks), marks)
