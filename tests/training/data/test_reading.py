import json
from pathlib import Path
from typing import Any

import pytest

from training.data import reading
from training.data.rows import Example
from training.errors import InvalidTrainingData

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def answered(**assistant: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", **assistant}]}


def call(identity: str, arguments: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


def called(then: Any) -> dict[str, Any]:
    asked = {"role": "assistant", "tool_calls": [call("1", "{}")]}
    tools = [{"type": "function", "function": {"name": "get_weather"}}]
    return {"messages": [GOOD["messages"][0], asked, then, {"role": "assistant", "content": "x"}], "tools": tools}


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
    examples = reading.read(write(tmp_path / "f", two_turns, *[GOOD] * 9), "supervised")
    assert isinstance(examples[0], Example)
    assert examples[0].messages[0].content == "Be brief."
    assert [message.trained for message in examples[0].messages] == [False, False, False, False, True]
    assert [example.line for example in examples] == list(range(1, 11))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{not json", "not JSON"),
        ("[1]", "no JSON object"),
        ({"messages": []}, "empty"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "no assistant turn"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "'robot'"),
        ({"messages": ["Hi"]}, "no object"),
        (answered(content=""), "empty or no text"),
        (answered(content=None), "empty or no text"),
        (answered(weight=0), "weight 0"),
        (answered(weight=0.5), "expected 0 or 1"),
        ({**GOOD, "tools": [{"type": "function"}]}, "tools"),
        ({**GOOD, "functions": [{"name": "f"}]}, "until 2023"),
        (answered(tool_calls=[{"id": "1"}]), "tool_calls"),
        (answered(tool_calls=[call("1", "no json")]), "no JSON"),
        (called(GOOD["messages"][0]), "before the result of the call"),
        (called({"role": "tool", "tool_call_id": "2", "content": "x"}), "which nobody made"),
        ({"messages": [{**GOOD["messages"][0], "tool_calls": [call("1", "{}")]}]}, "only the assistant"),
    ],
)
def test_a_bad_row_is_named_by_its_line(row: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidTrainingData, match=f"^line 3: .*{complaint}") as failed:
        reading.read(write(tmp_path / "f", GOOD, GOOD, row, *[GOOD] * 10), "supervised")
    assert failed.value.code == "invalid_training_file"


def test_every_bad_line_is_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    with pytest.raises(InvalidTrainingData, match="and 5 more"):
        reading.read(write(tmp_path / "f", *['{"'] * 25), "supervised")


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_fewer_than_ten_rows_are_too_few(rows: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidTrainingData, match="at least 10"):
        reading.read(write(tmp_path / "f", *[GOOD] * rows), "supervised")


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        ({"prompt": "2+2? ->", "completion": " 4\n"}, "2+2? ->", "4"),
        ({"instruction": "Add", "input": "2 and 2", "output": "4"}, "Add\n\n2 and 2", "4"),
        ({"instruction": "Say hi", "input": "", "output": "Hi"}, "Say hi", "Hi"),
    ],
    ids=["prompt/completion", "Alpaca", "Alpaca without input"],
)
def test_instruction_forms_become_chat(row: Any, prompt: str, answer: str, tmp_path: Path) -> None:
    rows = reading.read(write(tmp_path / "f", {**row, "system": "Be brief."}, *[GOOD] * 9), "supervised")
    assert [(one.role, one.content) for one in rows[0].prompt] == [("system", "Be brief."), ("user", prompt)]
    assert rows[0].answer == answer


PAIR = {
    "input": {"messages": [{"role": "user", "content": "Hi"}]},
    "preferred_output": [{"role": "assistant", "content": "Hello"}],
    "non_preferred_output": [{"role": "assistant", "content": "What?"}],
}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"input": None}, "preferred_output"),
        ({"input": GOOD}, "ends with an assistant turn"),
        ({"preferred_output": []}, '"preferred_output" is empty'),
        ({"preferred_output": PAIR["input"]["messages"]}, "of the assistant"),  # pyright: ignore
        ({"non_preferred_output": PAIR["preferred_output"]}, "both outputs are the same"),
    ],
)
def test_bad_pairs(change: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidTrainingData, match=complaint):
        reading.read(write(tmp_path / "f", *[PAIR] * 10, {**PAIR, **change}), "dpo")


def test_openais_own_example_of_tool_training_is_taken_as_it_is(tmp_path: Path) -> None:
    """From OpenAI's fine-tuning guide, "function calling"."""
    parameters = {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and country, eg. San Francisco, USA"},
            "format": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["location", "format"],
    }
    function = {"name": "get_current_weather", "description": "Get the current weather", "parameters": parameters}
    arguments = '{"location": "San Francisco, USA", "format": "celsius"}'
    asked = {"id": "call_id", "type": "function", "function": {"name": "get_current_weather", "arguments": arguments}}
    row = {
        "messages": [
            {"role": "user", "content": "What is the weather in San Francisco?"},
            {"role": "assistant", "tool_calls": [asked]},
        ],
        "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": function}],
    }
    example = reading.read(write(tmp_path / "f", *[row] * 10), "supervised")[0]
    assert isinstance(example, Example)
    assert example.tools[0]["function"] == function
    assert "San Francisco, USA" in example.answer
    assert example.messages[1].trained
