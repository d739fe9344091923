import pytest

from training import defaults
from training.job import Preference, Reinforcement, Supervised, SupervisedHyperparameters


def test_the_learning_rate_is_the_fits() -> None:
    assert defaults.learning_rate(hidden_size=576, batch_size=16) == pytest.approx(1.32e-3, rel=0.01)
    assert defaults.learning_rate(2000, 16) == pytest.approx(5e-4)
    assert defaults.learning_rate(2000, 4) == pytest.approx(2.5e-4)


@pytest.mark.parametrize(("rows", "epochs", "batch"), [(10, 10, 4), (100, 3, 4), (5_000, 3, 10), (100_000, 1, 32)])
def test_auto_follows_the_rows(rows: int, epochs: int, batch: int) -> None:
    resolved = defaults.resolve(Supervised(), rows=rows, hidden_size=576)
    assert (resolved.n_epochs, resolved.batch_size) == (epochs, batch)
    assert resolved.replay_share == 0.1


def test_what_the_user_gave_stays() -> None:
    wanted = SupervisedHyperparameters(n_epochs=2, batch_size=8, learning_rate_multiplier=0.5, replay_share=0)
    resolved = defaults.resolve(Supervised(hyperparameters=wanted), rows=100, hidden_size=576)
    assert resolved.wire(Supervised(hyperparameters=wanted)) == wanted.model_dump()
    assert resolved.learning_rate == pytest.approx(defaults.learning_rate(576, 8) / 2)


@pytest.mark.parametrize(
    "field", [{"n_epochs": 0}, {"n_epochs": 51}, {"batch_size": 257}, {"replay_share": 0.9}, {"lr": 1}]
)
def test_openais_ranges_hold(field: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        SupervisedHyperparameters(**field)  # pyright: ignore[reportArgumentType]


def test_each_method_has_its_own_rate() -> None:
    rate = defaults.learning_rate(576, 4)
    grader = {"type": "string_check", "name": "g", "input": "a", "reference": "b", "operation": "eq"}
    full = Supervised(hyperparameters=SupervisedHyperparameters(weights="full"))
    for method in (Preference(), Reinforcement.model_validate({"grader": grader}), full):
        resolved = defaults.resolve(method, rows=100, hidden_size=576)
        assert resolved.learning_rate == pytest.approx(rate / 10)
        assert "auto" not in resolved.wire(method).values()
        assert set(resolved.wire(method)) == set(type(method.hyperparameters).model_fields)
