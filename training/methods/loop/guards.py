"""Warnings in plain words: overfitting, a loss that rises or is NaN, gradients that explode."""

import math
import statistics
from collections import deque

from training.errors import TrainingDiverged

WINDOW = 10  # steps in a moving mean
RISEN = 1.5  # moving mean against its lowest value; noise with batches of 4 stayed below 1.3 in our runs
DIVERGED = 3.0  # moving mean against the first steps' mean, above which training did more harm than good
BLOWN_UP = 10.0  # a gradient's norm against the median of the previous window
FALLEN = 0.98  # if the training loss fell to this share, a rise of the validation loss is overfitting
MAX_WARNINGS = 3  # of each kind

_ADVICE = "Lower learning_rate_multiplier, or look for damaged rows in the data"


class Guards:
    """Checks every step's metrics; returns warnings, or stops the job."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._best_validation: tuple[float, int, float] | None = None  # loss, step, training loss at that step
        self._given: dict[str, int] = {}
        self._lowest = math.inf

    def see(self, step: int, metrics: dict[str, float]) -> list[str]:
        """Warnings about this step, in words.

        Args:
            metrics: train_loss, full_valid_loss, grad_norm, as far as they are known.

        Raises:
            TrainingDiverged: a metric is not finite, or the loss rose far above its start.
        """
        warnings: list[str] = []
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise TrainingDiverged(f"the {name} is {value} at step {step}: training diverged. {_ADVICE}")
        if "grad_norm" in metrics:
            warnings += self._norm(step, metrics["grad_norm"])
        if "train_loss" in metrics:
            warnings += self._loss(step, metrics["train_loss"])
        if "full_valid_loss" in metrics:
            warnings += self._validation(step, metrics["full_valid_loss"])
        return warnings

    def _norm(self, step: int, norm: float) -> list[str]:
        usual = statistics.median(self._norms) if len(self._norms) == WINDOW else math.inf
        self._norms.append(norm)
        if norm > BLOWN_UP * usual and norm > 1:
            times = f"{norm / usual:.0f} times the usual"
            return self._warn("norm", f"Gradient blow-up at step {step}: norm {norm:.1f}, {times}. {_ADVICE}")
        return []

    def _loss(self, step: int, loss: float) -> list[str]:
        self._losses.append(loss)
        if len(self._losses) < 2 * WINDOW:
            return []
        mean = statistics.fmean(self._losses[-WINDOW:])
        start = statistics.fmean(self._losses[:WINDOW])
        if mean > DIVERGED * start and mean > start + 1:
            raise TrainingDiverged(
                f"the loss rose from {start:.2f} to {mean:.2f} by step {step}: training diverged. {_ADVICE}"
            )
        self._lowest = min(self._lowest, mean)
        if mean > RISEN * self._lowest and mean > self._lowest + 0.3:
            return self._warn(
                "loss", f"The loss rises: {mean:.2f} over the last {WINDOW} steps, it was {self._lowest:.2f}. {_ADVICE}"
            )
        return []

    def _validation(self, step: int, loss: float) -> list[str]:
        training = statistics.fmean(self._losses[-WINDOW:]) if self._losses else math.inf
        if self._best_validation is None or loss < self._best_validation[0]:
            self._best_validation = (loss, step, training)
            return []
        best, best_step, then = self._best_validation
        if training < FALLEN * then and loss > best:
            return self._warn(
                "overfitting",
                f"Overfitting: since step {best_step} the training loss fell from {then:.3f} to {training:.3f}, the "
                f"validation loss rose from {best:.3f} to {loss:.3f}. Step {best_step}'s checkpoint stays the best; "
                "use fewer epochs, or more data",
            )
        return []

    def _warn(self, kind: str, message: str) -> list[str]:
        self._given[kind] = self._given.get(kind, 0) + 1
        return [message] if self._given[kind] <= MAX_WARNINGS else []
