"""A grader that fails says nothing of an answer: it never scores 0."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from training.graders import judge as judging
from training.graders.judge import Judge, JudgeUnavailable
from training.graders.models import Grader
from training.proof.scoring import BASE, TUNED, score

JUDGE = {"type": "score_model", "name": "judge", "model": "j", "input": [{"role": "user", "content": "Rate"}]}
CITY = {
    "type": "string_check",
    "name": "city",
    "input": "{{sample.output_json.city}}",
    "reference": "{{item.city}}",
    "operation": "eq",
}


def grader(content: dict[str, Any]) -> Any:
    return TypeAdapter(Grader).validate_python(content)


def test_a_judge_that_is_down_for_half_of_the_base_makes_nothing_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 0 the faults would have made two equal models a gain of 0.5, and moved the alias."""
    asked = 0

    def answer(*_: Any) -> tuple[float, int]:
        nonlocal asked
        asked += 1
        if asked <= 10:
            raise JudgeUnavailable("down")
        return 1.0, 5

    monkeypatch.setattr(judging, "score", answer)
    items: list[dict[str, Any]] = [{}] * 20
    scores = score(grader(JUDGE), items, {BASE: ["a"] * 20, TUNED: ["b"] * 20}, Judge("http://x/v1", "k"))
    compared = scores.compare(BASE, "base")
    assert compared is not None
    assert (compared.n, compared.base, compared.tuned, compared.verdict) == (10, 1, 1, "not surely different")
    assert scores.failure is not None
    assert (scores.failure.rows, scores.failure.of) == (10, 20)
    assert scores.failure.detail == "model_grader_server_error: down"


def test_no_row_left_is_no_comparison() -> None:
    scores = score(grader(JUDGE), [{}] * 12, {BASE: ["a"] * 12, TUNED: ["b"] * 12}, None)
    assert scores.compare(BASE, "base") is None
    assert scores.failure is not None
    assert "TUNEPORT_JUDGE_URL" in scores.failure.detail


def test_an_answer_without_the_json_that_is_graded_is_wrong_and_no_failure() -> None:
    items = [{"city": "Rome"}] * 10
    scores = score(grader(CITY), items, {BASE: ["Rome, I think"] * 10, TUNED: ['{"city": "Rome"}'] * 10}, None)
    assert scores.failure is None
    compared = scores.compare(BASE, "base")
    assert compared is not None
    assert (compared.base, compared.tuned) == (0, 1)


@pytest.mark.parametrize(
    "change",
    [{"reference": "{{item.town}}"}, {"input": "{{sample.output_txt}}"}, {"input": "{{item.output_json.city}}"}],
)
def test_a_path_that_no_row_or_sample_has_is_the_graders_fault(change: dict[str, str]) -> None:
    answer = '{"city": "Rome"}'
    scores = score(grader(CITY | change), [{"city": "Rome"}], {BASE: [answer], TUNED: [answer]}, None)
    assert scores.failure is not None


@pytest.mark.parametrize(
    "content",
    [
        {"type": "python", "name": "p", "source": "def grade(sample, item):\n    return 1 / 0"},
        {
            "type": "multi",
            "name": "m",
            "graders": {"city": CITY},
            "calculate_output": "1 / (city - 1)",
        },
    ],
    ids=["python", "formula"],
)
def test_code_and_formulas_that_break_are_failures(content: dict[str, Any]) -> None:
    answers = ['{"city": "Rome"}'] * 2
    scores = score(grader(content), [{"city": "Rome"}] * 2, {BASE: answers, TUNED: answers}, None)
    assert scores.failure is not None
    assert scores.failure.rows == 2
