"""Two models on the same rows: the difference, its interval, and what so few rows could have shown at all."""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel
from scipy import stats

RESAMPLES = 10_000
_POWER = 1.96 + 0.84  # normal quantiles of a two-sided 5 % test with 80 % power


class Comparison(BaseModel):
    """Mean scores of base and tuned model on `n` rows, and their difference with its 95 % interval.

    Attributes:
        low, high: of the paired bootstrap over rows, 10,000 resamples.
        p_value: exact McNemar test where every score is 0 or 1, else None.
        smallest_effect: the difference that this `n` would have shown four times out of five; one row's at least.
        tuned_low, tuned_high: Wilson's 95 % interval of the tuned share, where every score is 0 or 1.
    """

    grader: str
    n: int
    base: float
    tuned: float
    difference: float
    low: float
    high: float
    p_value: float | None = None
    smallest_effect: float
    tuned_low: float | None = None
    tuned_high: float | None = None

    def sentence(self) -> str:
        """In words."""
        sure = "better" if self.low > 0 else "worse" if self.high < 0 else "not surely different"
        return (
            f"{self.grader}: base {self.base:.3f}, fine-tuned {self.tuned:.3f}; difference {self.difference:+.3f} "
            f"(95 % interval {self.low:+.3f} to {self.high:+.3f}, n = {self.n}): {sure}"
        )


def compare(grader: str, base: Sequence[float], tuned: Sequence[float], seed: int = 0) -> Comparison:
    """Compare paired scores; higher is better.

    Args:
        base, tuned: a score a row, in the same order, at least one.
    """
    before, after = np.asarray(base, dtype=float), np.asarray(tuned, dtype=float)
    difference = after - before
    n = len(difference)
    dice = np.random.default_rng(seed)
    means = np.concatenate(
        [difference[dice.integers(0, n, (1_000, n))].mean(axis=1) for _ in range(RESAMPLES // 1_000)]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    binary = bool(np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all())
    comparison = Comparison(
        grader=grader,
        n=n,
        base=float(before.mean()),
        tuned=float(after.mean()),
        difference=float(difference.mean()),
        low=float(low),
        high=float(high),
        smallest_effect=max(1 / n, float(_POWER * difference.std(ddof=1) / math.sqrt(n))) if n > 1 else math.inf,
    )
    if not binary:
        return comparison
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    share = stats.binomtest(int(after.sum()), n).proportion_ci(method="wilson")
    return comparison.model_copy(
        update={"p_value": p_value, "tuned_low": float(share.low), "tuned_high": float(share.high)}
    )
