"""A job's request: OpenAI's ranges with their ends, hyperparameters in either place, nulls, nothing dropped."""

from typing import Any

import pytest
from openai.types.fine_tuning import FineTuningJob
from pydantic import ValidationError

from server.errors import InvalidRequest
from server.openai.fine_tuning.requests import JobRequest
from training.job import Gate

GRADER = {"type": "string_check", "name": "g", "input": "a", "reference": "b", "operation": "eq"}


def request(**more: Any) -> JobRequest:
    return JobRequest.model_validate({"model": "m", "training_file": "f", **more})


def method(kind: str, **hyperparameters: Any) -> dict[str, Any]:
    more = {"grader": GRADER} if kind == "reinforcement" else {}
    return {"type": kind, kind: {"hyperparameters": hyperparameters, **more}}


COMMON = {
    "n_epochs": ([1, 50, "auto"], [0, 51, "all", []]),
    "batch_size": ([1, 256, "auto"], [0, 257]),
    "learning_rate_multiplier": ([1e-9, 0.1, 2, 1000, "auto"], [0, -1]),
}
RANGES: dict[str, dict[str, tuple[list[Any], list[Any]]]] = {
    "supervised": COMMON,
    "dpo": COMMON | {"beta": ([1e-9, 0.1, 2, 2.0, "auto"], [0, 2.1])},
    "reinforcement": COMMON
    | {
        "compute_multiplier": ([0.0001, 1, 10, "auto"], [0.00001, 10.1]),
        "eval_interval": ([1, 1000, "auto"], [0]),
        "eval_samples": ([1, 1000, "auto"], [0, 1001]),
        "reasoning_effort": (["default", "low", "medium", "high"], ["auto", "none"]),
    },
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in RANGES.items() for name in names])
def test_openais_ranges_are_ours(kind: str, name: str) -> None:
    inside, outside = RANGES[kind][name]
    for value in inside:
        wanted = request(method=method(kind, **{name: value})).wanted()
        assert getattr(wanted.hyperparameters, name) == value
    for value in outside:
        with pytest.raises(InvalidRequest) as refused:
            request(method=method(kind, **{name: value})).wanted()
        assert refused.value.param == f"method.{kind}.hyperparameters.{name}"


@pytest.mark.parametrize("name", COMMON)
def test_the_old_place_has_the_same_ranges(name: str) -> None:
    inside, outside = COMMON[name]
    for value in inside:
        for beside in ({}, {"method": {"type": "supervised"}}, {"method": method("supervised", seed=None)}):
            wanted = request(hyperparameters={name: value}, **beside).wanted()
            assert getattr(wanted.hyperparameters, name) == value
    for value in outside:
        with pytest.raises(InvalidRequest) as refused:
            request(hyperparameters={name: value}, method=method("supervised", n_epochs="auto")).wanted()
        assert refused.value.param == f"hyperparameters.{name}"


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("seed", [0, 2**31 - 1, None], [-1, 2**31, "x"]),
        ("suffix", ["a", "x" * 64, "Größe 😀 / 2", "\u202e\0\u2028", None], ["", "x" * 65, 5]),
        (
            "metadata",
            [{}, None, {"k" * 64: "v" * 512}, {str(n): "" for n in range(16)}, {"a": None}],
            [{"k" * 65: ""}, {"k": "v" * 513}, {str(n): "" for n in range(17)}, {"a": 1}, []],
        ),
        ("validation_file", ["file-1", None], [1]),
        (
            "integrations",
            [
                [],
                None,
                [{"type": "wandb", "wandb": {"project": "p", "name": None, "entity": None, "tags": None}}],
                [{"type": "wandb", "wandb": {"project": "p" * 128, "tags": ["a", "b c"]}}],
            ],
            [
                [{"type": "wandb"}],
                [{"type": "wandb", "wandb": {"project": "p", "tag": []}}],
                [{"type": "wandb", "wandb": {"project": "a\0b"}}],
                [{"type": "wandb", "wandb": {"project": "p", "tags": ["a,b"]}}],
            ],
        ),
        ("method", [None], [{}, {"type": "ppo"}, {"type": "supervised", "ppo": {}}]),
        ("n_epochs", [None], [3]),
        ("prompt_loss_weight", [None], [0.1]),
    ],
)
def test_every_field_takes_what_openai_documents(field: str, inside: list[Any], outside: list[Any]) -> None:
    for value in inside:
        request(**{field: value}).wanted()
    for value in outside:
        with pytest.raises(ValidationError) as refused:
            request(**{field: value})
        assert refused.value.errors()[0]["loc"][0] == field


def test_values_in_both_places_are_joined_and_may_not_disagree() -> None:
    both = request(hyperparameters={"n_epochs": 1, "batch_size": 2}, method=method("supervised", n_epochs=1))
    assert both.wanted().hyperparameters.n_epochs == 1
    assert both.wanted().hyperparameters.batch_size == 2
    with pytest.raises(InvalidRequest) as refused:
        request(hyperparameters={"n_epochs": 1}, method=method("supervised", n_epochs=2)).wanted()
    assert refused.value.param == "hyperparameters.n_epochs"
    dpo = request(hyperparameters={"n_epochs": 1, "beta": 0.2}, method={"type": "dpo"}).wanted()
    assert dpo.hyperparameters.model_dump()["beta"] == 0.2


@pytest.mark.parametrize("kind", ["supervised", "dpo", "reinforcement"])
def test_a_value_under_another_method_is_refused(kind: str) -> None:
    for other in {"supervised", "dpo", "reinforcement"} - {kind}:
        with pytest.raises(InvalidRequest) as refused:
            request(method=method(kind) | method(other, n_epochs=1) | {"type": kind}).wanted()
        assert refused.value.param == f"method.{other}"
        for nothing in (None, {}, {"hyperparameters": None}, {"hyperparameters": {"n_epochs": None}}):
            request(method=method(kind) | {other: nothing}).wanted()


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ({"method": method("supervised", beta=0.1)}, "method.supervised.hyperparameters.beta"),
        ({"method": method("dpo", n_epoch=1)}, "method.dpo.hyperparameters.n_epoch"),
        ({"method": {"type": "dpo", "dpo": {"beta": 0.1}}}, "method.dpo.beta"),
        ({"method": {"type": "dpo", "dpo": {"grader": GRADER}}}, "method.dpo.grader"),
        ({"method": {"type": "reinforcement", "reinforcement": {"grader": None}}}, "method.reinforcement.grader"),
        ({"hyperparameters": {"beta": 0.1}}, "hyperparameters.beta"),
        ({"hyperparameters": {"beta": 0.1}, "method": {"type": "supervised"}}, "hyperparameters.beta"),
        ({"method": {"type": "supervised", "supervised": {"hyperparameters": 5}}}, "method.supervised.hyperparameters"),
    ],
)
def test_what_a_method_does_not_know_is_refused_by_its_place(content: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        request(**content).wanted()
    assert refused.value.param == param


@pytest.mark.parametrize("mode", ["python", "json"])
@pytest.mark.parametrize("kind", ["supervised", "dpo", "reinforcement"])
def test_a_jobs_own_method_and_hyperparameters_are_a_new_jobs(kind: str, mode: Any) -> None:
    first = request(method=method(kind, n_epochs=2)).wanted()
    values = first.hyperparameters.model_dump()
    configuration = {**first.model_dump(exclude={"type"}), "hyperparameters": values}
    job = FineTuningJob.model_validate(
        {
            "id": "j",
            "created_at": 1,
            "error": None,
            "fine_tuned_model": None,
            "finished_at": None,
            "model": "m",
            "object": "fine_tuning.job",
            "organization_id": "o",
            "result_files": [],
            "seed": 0,
            "status": "queued",
            "trained_tokens": None,
            "training_file": "f",
            "validation_file": None,
            "hyperparameters": values,
            "method": {"type": kind, kind: configuration},
        }
    )
    assert job.method is not None
    again = request(method=job.method.model_dump(mode=mode), hyperparameters=job.hyperparameters.model_dump(mode=mode))
    assert again.wanted() == first


@pytest.mark.parametrize("key", ["min_gain", "min_score", "max_kl", "max_retention_loss"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_a_threshold_is_a_finite_number(key: str, value: str) -> None:
    """Nothing is below NaN: such a gate would let everything through, and in a job's record both become null."""
    with pytest.raises(InvalidRequest) as refused:
        request(metadata={f"gate.{key}": value}).gate(Gate())
    assert refused.value.param == f"metadata.gate.{key}"


def test_a_gates_alias_is_named_where_it_stands() -> None:
    with pytest.raises(InvalidRequest, match="not a fine-tuned model's name") as refused:
        request(metadata={"gate.alias": "acme"}).gate(Gate())
    assert refused.value.param == "metadata.gate.alias"


def test_accepted_findings_are_said_clearly() -> None:
    for said, meant in ((None, False), ("true", True), ("True", True), ("FALSE", False)):
        assert request(metadata={"accept_findings": said}).accepts_findings() is meant
    for said in ("yes", "1", "", "secrets"):
        with pytest.raises(InvalidRequest) as refused:
            request(metadata={"accept_findings": said}).accepts_findings()
        assert refused.value.param == "metadata.accept_findings"
