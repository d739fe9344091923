import json

import pytest

from demo.__main__ import GENERAL
from demo.tasks import TASKS, Task
from training.methods import replay


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_nothing_asked_in_a_test_occurs_in_training(task: Task) -> None:
    train, test = task.rows(200, 100)
    words = {word for row in train for word in _entities(row.jsonl())}
    asked = [_entities(row.jsonl()) for row in test]
    assert all(len(entities) == 3 for entities in asked)
    assert not words & {entity for entities in asked for entity in entities}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_rows_are_the_same_every_time_and_right_is_to_the_letter(task: Task) -> None:
    row = task.rows(5, 5)[1][0]
    assert row == task.rows(5, 5)[1][0]
    assert row.right(f" {row.answer}\n")
    assert not row.right(row.answer.lower())
    assert json.loads(row.jsonl())["messages"][-1] == {"role": "assistant", "content": row.answer}


def test_what_the_demo_asks_about_forgetting_is_not_rehearsed() -> None:
    rehearsed = {prompt.lower() for prompt in replay.prompts()}
    assert not rehearsed & {question.lower() for question in GENERAL}
    assert not any("france" in prompt or "autumn" in prompt or "grandmother" in prompt for prompt in rehearsed)


def _entities(line: str) -> set[str]:
    """Names, products and order numbers: what no fixed text of the tasks holds."""
    prompt = json.loads(line)["messages"][1]["content"]
    fixed = {"Hi", "My", "Order", "This", "In", "Regards", "I"}
    words = {word.strip(".,:") for word in prompt.split()}
    return {word for word in words if word.isdigit() or (word[:1].isupper() and word not in fixed)}
