"""What intervals and verdicts promise, held to thousands of made-up proofs in which the truth is known."""

from collections.abc import Callable

import numpy as np
import pytest

from training.proof.statistics import compare, interval

Dice = np.random.Generator
Draw = Callable[[Dice, int], tuple[np.ndarray, np.ndarray]]
TIMES = 1_000


def right_and_wrong(gained: float, lost: float) -> Draw:
    """Scores of 0 and 1; so many rows are gained, so many lost, the others tie."""

    def draw(dice: Dice, n: int) -> tuple[np.ndarray, np.ndarray]:
        kind = dice.choice(4, size=n, p=[gained, lost, (1 - gained - lost) / 2, (1 - gained - lost) / 2])
        return np.isin(kind, (1, 2)).astype(float), np.isin(kind, (0, 2)).astype(float)

    return draw


def graded(gain: float, ties: float = 0.0) -> Draw:
    """Scores between 0 and 1, so many rows without a change."""

    def draw(dice: Dice, n: int) -> tuple[np.ndarray, np.ndarray]:
        base = dice.beta(2, 2, n) * (1 - gain)
        tuned = dice.beta(2, 2, n) * (1 - gain) + gain
        return base, np.where(dice.random(n) < ties, base, tuned)

    return draw


# name: rows, and the true difference
CASES: dict[str, tuple[Draw, float]] = {
    "right and wrong, equal": (right_and_wrong(0.2, 0.2), 0.0),
    "right and wrong, equal, mostly ties": (right_and_wrong(0.05, 0.05), 0.0),
    "right and wrong, better": (right_and_wrong(0.4, 0.1), 0.3),
    "right and wrong, near the ceiling": (right_and_wrong(0.9, 0.0), 0.9),
    "graded, equal": (graded(0.0), 0.0),
    "graded, equal, mostly ties": (graded(0.0, ties=0.8), 0.0),
    "graded, better": (graded(0.3), 0.3),
    "graded, better, many ties": (graded(0.3, ties=0.6), 0.12),
}


def simulated(draw: Draw, n: int, seed: int) -> np.ndarray:
    """`[TIMES, 2]`: the intervals of so many proofs of `n` rows."""
    dice = np.random.default_rng([n, seed])
    pairs = [draw(dice, n) for _ in range(TIMES)]
    return np.array([interval(tuned - base, -1.0, 1.0) for base, tuned in pairs])


@pytest.mark.parametrize("n", [5, 10, 30, 100, 200])
@pytest.mark.parametrize("case", CASES)
def test_the_interval_covers_the_truth_and_equal_models_are_called_equal(case: str, n: int) -> None:
    draw, truth = CASES[case]
    low, high = simulated(draw, n, len(case)).T
    covered, better = ((low <= truth) & (truth <= high)).mean(), (low > 0).mean()
    print(f"{case}, n = {n}: covered {covered:.3f}, better {better:.3f}")
    assert covered >= 0.93, "95 % are promised; so many proofs tell it to 0.007"
    if truth == 0:
        assert better <= 0.045
    elif n >= 100:
        assert better > 0.95


@pytest.mark.parametrize("n", [10, 30, 100, 200])
def test_the_smallest_effect_is_seen_four_times_out_of_five(n: int) -> None:
    """Planned with rows in which nothing differed, then drawn with that difference."""
    planned = compare("g", [0.0] * n, [0.0] * n).smallest_effect
    seen = (simulated(right_and_wrong(planned, 0.0), n, 1)[:, 0] > 0).mean()
    print(f"n = {n}: {planned:.3f} is seen in {seen:.3f}")
    assert 0.75 <= seen <= 0.95


def test_a_bootstraps_interval_covers_less_where_rows_are_few() -> None:
    """Of ten rows that gain nine times out of ten, one proof in three saw no loss, and so did all it draws from."""
    draw, truth = CASES["right and wrong, near the ceiling"]
    dice = np.random.default_rng(0)
    gains = [tuned - base for base, tuned in (draw(dice, 10) for _ in range(TIMES))]
    means = np.stack([gain[dice.integers(10, size=(TIMES, 10))].mean(1) for gain in gains])
    low, high = np.percentile(means, [2.5, 97.5], axis=1)
    assert ((low <= truth) & (truth <= high)).mean() < 0.75
