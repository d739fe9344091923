import json
from pathlib import Path
from typing import Any

import pytest

from training import data
from training.errors import InvalidTrainingData

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def answered(**assistant: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", **assistant}]}


def test_weights_and_content_parts_are_read(tmp_path: Path) -> None:
    two_turns = {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello", "weight": 0},
            {"role": "user", "content": "Bye"},
            {"role": "assistant", "content": "Ciao", "weight": 1},
        ]
    }
    examples = data.read(write(tmp_path / "f", two_turns, *[GOOD] * 9))
    assert examples[0].messages[0].content == "Be brief."
    assert [message.trained for message in examples[0].messages] == [False, False, False, False, True]
    assert [example.line for example in examples] == list(range(1, 11))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{not json", "not JSON"),
        ("[1]", '"messages" list'),
        ({"messages": []}, "empty"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "no assistant turn"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "'robot'"),
        ({"messages": ["Hi"]}, "no object"),
        (answered(content=""), "empty or no text"),
        (answered(content=None), "empty or no text"),
        (answered(weight=0), "weight 0"),
        (answered(weight=0.5), "expected 0 or 1"),
        ({**GOOD, "tools": [{"type": "function"}]}, "tools"),
    ],
)
def test_a_bad_row_is_named_by_its_line(row: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidTrainingData, match=f"^line 3: .*{complaint}") as failed:
        data.read(write(tmp_path / "f", GOOD, GOOD, row, *[GOOD] * 10))
    assert failed.value.code == "invalid_training_file"


def test_every_bad_line_is_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    with pytest.raises(InvalidTrainingData, match="and 5 more"):
        data.read(write(tmp_path / "f", *["{"] * 25))


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_fewer_than_ten_rows_are_too_few(rows: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidTrainingData, match="at least 10"):
        data.read(write(tmp_path / "f", *[GOOD] * rows))


def test_the_held_out_rows_are_a_tenth_drawn_by_the_seed() -> None:
    examples = [data.Example((), line) for line in range(100)]
    train, validation = data.hold_out(examples, seed=3)
    assert len(validation) == 10
    assert sorted(example.line for example in (*train, *validation)) == list(range(100))
    assert data.hold_out(examples, seed=3) == (train, validation)
    assert data.hold_out(examples, seed=4) != (train, validation)
    assert len(data.hold_out(examples * 100, seed=3)[1]) == 200
