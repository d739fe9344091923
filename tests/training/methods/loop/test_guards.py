"""What goes wrong in training is said in plain words, and what goes right is not remarked on."""

import math
import random

import pytest

from training.errors import TrainingDiverged
from training.methods.loop.guards import MAX_WARNINGS, Guards


def warnings(
    losses: list[float], validation: dict[int, float] | None = None, norms: list[float] | None = None
) -> list[str]:
    guards = Guards()
    said: list[str] = []
    for step, loss in enumerate(losses, 1):
        metrics = {"train_loss": loss, "grad_norm": norms[step - 1] if norms else 1.0}
        said += guards.see(step, metrics)
        if validation and step in validation:
            said += guards.see(step, {"full_valid_loss": validation[step]})
    return said


def test_a_loss_that_falls_with_noise_is_fine() -> None:
    dice = random.Random(0)
    losses = [3 * math.exp(-step / 30) * dice.uniform(0.7, 1.3) for step in range(100)]
    assert warnings(losses, {30: 1.2, 60: 0.6, 90: 0.3}) == []


def test_overfitting_names_the_step_to_keep() -> None:
    losses = [2.0 - step * 0.015 for step in range(100)]
    said = warnings(losses, {30: 1.0, 60: 0.9, 90: 1.1})
    assert len(said) == 1
    assert said[0].startswith("Overfitting: since step 60 the training loss fell")
    assert "rose from 0.900 to 1.100" in said[0]


def test_a_rising_loss_is_warned_of_then_ends_the_job() -> None:
    said = warnings([1.0] * 30 + [1.9] * 12)
    assert said
    assert said[0].startswith("The loss rises")
    assert len(said) <= MAX_WARNINGS
    with pytest.raises(TrainingDiverged, match=r"the loss rose from 1\.00 to"):
        warnings([1.0] * 30 + [9.0] * 12)


def test_a_gradient_that_blows_up() -> None:
    said = warnings([1.0] * 15, norms=[1.0] * 12 + [80.0] + [1.0] * 2)
    assert said == [one for one in said if one.startswith("Gradient blow-up at step 13: norm 80.0, 80 times the usual")]
    assert len(said) == 1


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_no_number_ends_the_job(loss: float) -> None:
    with pytest.raises(TrainingDiverged, match="at step 3"):
        warnings([1.0, 1.0, loss])
