"""Intervals that hold what they promise, and the gate that reads them."""

import numpy as np
import pytest

from training.job import Gate
from training.proof.evaluation import Evaluation, Forgetting, judge
from training.proof.statistics import Comparison, compare


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 200 data sets with a true gain of 0.2, about 95 % of the intervals hold it."""
    dice = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        base = dice.random(40)
        tuned = base + 0.2 + dice.normal(0, 0.3, 40)
        one = compare("g", base.tolist(), tuned.tolist(), seed)
        hits += one.low <= 0.2 <= one.high
    assert 0.88 <= hits / 200 <= 0.99


def test_right_and_wrong_is_tested_exactly() -> None:
    one = compare("g", [0] * 10, [1] * 9 + [0])
    assert (one.base, one.tuned, one.difference, one.n) == (0, 0.9, 0.9, 10)
    assert one.p_value == pytest.approx(2 / 2**9)
    assert one.tuned_low == pytest.approx(0.596, abs=0.001), "Wilson's interval for 9 of 10"
    assert one.tuned_high == pytest.approx(0.982, abs=0.001)
    assert compare("g", [1, 0], [1, 0]).p_value == 1
    assert compare("g", [0.5, 0], [1, 0]).p_value is None


def test_few_rows_say_how_little_they_could_have_shown() -> None:
    few, many = (compare("g", [0, 1] * n, [1, 1] * n) for n in (5, 500))
    assert few.smallest_effect > 5 * many.smallest_effect
    assert "not surely different" in compare("g", [0, 1, 0], [0, 1, 1]).sentence()
    assert "better" in many.sentence()


def evaluation(tuned: float = 1.0, kl: float = 0.1, kept: float = 1.0, n: int = 40) -> Evaluation:
    scores: list[float] = [1.0] * round(tuned * n) + [0.0] * (n - round(tuned * n))
    retention: Comparison = compare(
        "general questions", [1.0] * 20, [1.0] * round(20 * kept) + [0.0] * (20 - round(20 * kept))
    )
    main = compare("exact match", [0.0] * n, scores)
    return Evaluation(comparisons=[main], sides=[], forgetting=Forgetting(kl=kl, retention=retention, answers=[]))


def test_the_gate_lets_through_what_is_surely_better_and_forgot_little() -> None:
    assert judge(evaluation(), Gate()).passed
    assert judge(evaluation(tuned=0.5), Gate(min_score=0.4)).passed


@pytest.mark.parametrize(
    ("result", "gate", "reason"),
    [
        (evaluation(tuned=0.0), Gate(), "exact match gained +0.000"),
        (evaluation(tuned=0.5), Gate(min_score=0.8), "exact match is 0.500; asked are 0.800"),
        (evaluation(tuned=0.5), Gate(min_gain=0.5), "asked is a gain above 0.500"),
        (evaluation(kl=0.7), Gate(), "0.70 nats a token"),
        (evaluation(kept=0.7), Gate(), "it lost 30%"),
    ],
)
def test_the_gate_says_what_is_missing(result: Evaluation, gate: Gate, reason: str) -> None:
    verdict = judge(result, gate)
    assert not verdict.passed
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]
