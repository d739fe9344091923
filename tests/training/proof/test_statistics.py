"""What a comparison says; what its intervals promise is simulated in test_simulated.py."""

import pytest

from training.proof.statistics import compare


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
    assert "too few rows (a verdict takes 10)" in compare("g", [0, 1, 0], [0, 1, 1]).sentence()
    assert "not surely different" in compare("g", [0, 1, 0, 1, 0] * 2, [0, 1, 0, 1, 1] * 2).sentence()
    assert "better" in many.sentence()


def test_no_difference_seen_is_no_proof_that_any_would_have_been() -> None:
    one = compare("g", [0.0] * 20, [0.0] * 20)
    assert one.smallest_effect == pytest.approx(0.33, abs=0.01), "with 0 of 20 twice, not 0.000"
    assert one.low < -0.05, "nor an interval from 0 to 0"
    assert one.high > 0.05


@pytest.mark.parametrize("n", range(1, 10))
def test_there_is_no_verdict_below_ten_rows(n: int) -> None:
    assert compare("g", [0.0] * n, [1.0] * n).verdict == "too few rows"
    assert compare("g", [0.0] * 10, [1.0] * 10).verdict == "better"


def test_rows_that_got_better_and_worse_are_counted_and_the_json_has_the_verdict() -> None:
    one = compare("g", [0, 1, 0.5] * 4, [1, 0.2, 0.5] * 4, "v1")
    assert (one.gained, one.lost, one.against) == (4, 4, "v1")
    assert one.model_dump()["verdict"] == "not surely different"
