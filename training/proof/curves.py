"""Curves for the HTML report: lines and points in percent of a plot, and round numbers on both axes."""

import math
from dataclasses import dataclass
from typing import Any

NAMES = {
    "train_loss": "training loss",
    "full_valid_loss": "validation loss",
    "train_mean_reward": "training reward",
    "full_valid_mean_reward": "validation reward",
    "train_preference_accuracy": "training: prefers the preferred",
    "full_valid_preference_accuracy": "validation: prefers the preferred",
}
PANELS = (
    ("Loss (nats a token)", ("train_loss", "full_valid_loss")),
    ("Reward", ("train_mean_reward", "full_valid_mean_reward")),
    ("Preference (share)", ("train_preference_accuracy", "full_valid_preference_accuracy")),
)
TICKS = 4  # per axis, about


@dataclass(frozen=True)
class Point:
    """A point: percent from the left and from the top, and its values as text."""

    x: float
    y: float
    words: str


@dataclass(frozen=True)
class Tick:
    """A tick: percent along the axis, from the left or the top, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Panel:
    """Curves with common axes: `lines` by name, ticks of steps and of values."""

    title: str
    lines: dict[str, list[Point]]
    x: list[Tick]
    y: list[Tick]


def panels(metrics: list[dict[str, Any]]) -> list[Panel]:
    """The panels for which there are metrics.

    Args:
        metrics: lines of `metrics.jsonl`.
    """
    drawn: list[Panel] = []
    for title, names in PANELS:
        series = {NAMES[name]: [(row["step"], row[name]) for row in metrics if name in row] for name in names}
        series = {name: points for name, points in series.items() if points}
        if series:
            drawn.append(_panel(title, series))
    return drawn


def _panel(title: str, series: dict[str, list[tuple[int, float]]]) -> Panel:
    values = [value for points in series.values() for _, value in points]
    ticks, steps = (
        _round(min(0.0, *values), max(values)),
        _round(0, max(step for one in series.values() for step, _ in one)),
    )
    bottom, top, last = ticks[0], ticks[-1], steps[-1]

    def x(step: float) -> float:
        return round(100 * step / last, 2)

    def y(value: float) -> float:
        return round(100 * (top - value) / (top - bottom), 2)

    lines = {
        name: [Point(x(step), y(value), f"{name} {value:.4f} at step {step}") for step, value in points]
        for name, points in series.items()
    }
    return Panel(title, lines, [Tick(x(one), f"{one:g}") for one in steps], [Tick(y(one), f"{one:g}") for one in ticks])


def _round(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that enclose both."""
    high = high if high > low else low + 1
    least = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(least))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)
    return [round(count * step, 10) for count in range(math.floor(low / step), math.ceil(high / step - 1e-9) + 1)]
