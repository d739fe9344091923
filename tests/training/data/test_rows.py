"""Rows as exporters leave them: null means absent, and every field is used, refused by name, or told of."""

import json
import random
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessage, ChatCompletionMessageFunctionToolCall
from openai.types.chat.chat_completion_message_function_tool_call import Function
from pydantic import BaseModel

from server.openai.chat.tools import Tool, choose
from training.data.rows import Example, Pair, Row, Task, parse
from training.kinds import Kind

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
CALL: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "find", "parameters": {"type": "object", "properties": {}}},
}
PAIR = {
    "input": {"messages": [USER]},
    "preferred_output": [ANSWER],
    "non_preferred_output": [{**ANSWER, "content": "?"}],
}
KEYS = ("weight", "name", "tool_calls", "tool_call_id", "function_call", "refusal", "audio", "annotations")


def row(content: Any, kind: Kind = "supervised") -> Row:
    return parse(json.dumps(content), 7, kind)


def padded(message: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(KEYS) | message


def answered(**more: Any) -> dict[str, Any]:
    return {"messages": [USER, {**ANSWER, **more}]}


def test_null_means_absent_wherever_it_stands() -> None:
    chat = {"messages": [padded(USER), padded(ANSWER)], "tools": None, "functions": None, "parallel_tool_calls": None}
    assert row(chat | {"prompt": None, "completion": None, "output": None}) == row({"messages": [USER, ANSWER]})
    old = {"prompt": "Hi", "completion": "Hello", "messages": None, "system": None, "instruction": None}
    assert row(old) == row({"messages": [USER, ANSWER]})
    alpaca = {"instruction": "Hi", "input": None, "output": "Hello", "messages": None, "system": None}
    assert row(alpaca) == row({"messages": [USER, ANSWER]})
    part = {"type": "text", "text": "Hello", "image_url": None, "refusal": None}
    assert row(answered(content=[part])) == row({"messages": [USER, ANSWER]})
    pair = {"input": {"messages": [padded(USER)], "tools": None, "parallel_tool_calls": None}, "tools": None}
    pair |= {key: [padded(one) for one in PAIR[key]] for key in ("preferred_output", "non_preferred_output")}  # pyright: ignore
    assert row(pair, "dpo") == row(PAIR, "dpo")
    task = row({"messages": [padded(USER)], "tools": None, "answer": None}, "reinforcement")
    assert isinstance(task, Task)
    assert task.item == {"tools": None, "answer": None}, "a grader may ask whether it is null"


def test_padded_tools_are_those_that_will_be_offered() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["a", None]}, "day": None},
    }
    schema["properties"]["city"]["default"] = None
    tool = {"type": "function", "function": {"name": "find", "description": None, "strict": None, "parameters": schema}}
    example = row({"messages": [USER, {**ANSWER, "tool_calls": [CALL]}], "tools": [tool]})
    assert isinstance(example, Example)
    city = {"type": "string", "enum": ["a", None], "default": None}
    parameters = {"type": "object", "properties": {"city": city}}
    assert example.tools == ({"type": "function", "function": {"name": "find", "parameters": parameters}},)


def test_parameters_may_have_the_names_of_json_schema() -> None:
    """Padded, every tool of a data set has those that one of them has."""
    number = {"type": "number"}
    names = ("default", "const", "enum", "properties", "type")
    padded_properties = dict.fromkeys(names) | {"enum": {**number, "description": None}, "properties": number}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": padded_properties}}}
    example = row({"messages": [USER, ANSWER], "tools": [tool]})
    assert isinstance(example, Example)
    assert example.tools[0]["function"]["parameters"] == {"properties": {"enum": number, "properties": number}}


class City(BaseModel):
    """A city."""

    name: str
    country: str | None = None


SHUFFLED = {
    "function": {"strict": None, "parameters": {"type": "object"}, "description": "Finds.", "name": "find"},
    "type": "function",
}


@pytest.mark.parametrize(
    "tool", [TOOL, SHUFFLED, openai.pydantic_function_tool(City)], ids=["plain", "shuffled", "the SDK's helper's"]
)
def test_a_tool_is_written_in_training_as_the_server_writes_it(tool: Any) -> None:
    """Key by key in one order: a template writes it as it comes, and other text is another prompt."""
    example = row({"messages": [USER, ANSWER], "tools": [tool]})
    assert isinstance(example, Example)
    offered = choose([Tool.model_validate(tool)], None, parallel=True)
    assert offered is not None
    assert json.dumps(example.tools) == json.dumps(offered.functions)


@pytest.mark.parametrize("mode", ["python", "json"])
def test_what_the_sdk_dumps_is_a_message(mode: Any) -> None:
    message = ChatCompletionMessage(role="assistant", content="Hello")
    assert row({"messages": [USER, message.model_dump(mode=mode)]}) == row({"messages": [USER, ANSWER]})
    call = ChatCompletionMessageFunctionToolCall(
        id="c1", type="function", function=Function(name="find", arguments="{}")
    )
    asks = ChatCompletionMessage(role="assistant", content=None, tool_calls=[call])
    example = row({"messages": [USER, asks.model_dump(mode=mode)], "tools": [TOOL]})
    assert isinstance(example, Example)
    assert example.messages[1].calls == (CALL,)


def test_a_refusal_is_what_the_assistant_says() -> None:
    refused = ChatCompletionMessage(role="assistant", content=None, refusal="I won't.").model_dump()
    assert row({"messages": [USER, refused]}).answer == "I won't."
    assert row(answered(content=[{"type": "refusal", "refusal": "I won't."}])).answer == "I won't."


LOST: dict[str, tuple[Any, str]] = {
    "call without tools": (answered(tool_calls=[CALL]), r"messages\[1\] calls 'find', which is not among"),
    "call of another tool": (
        {**answered(tool_calls=[{**CALL, "function": {"name": "f", "arguments": ""}}]), "tools": [TOOL]},
        "'f'",
    ),
    "the word null": ({**answered(content="null", tool_calls=[CALL]), "tools": [TOOL]}, 'the word "null"'),
    "calls against the rule": (
        {**answered(tool_calls=[CALL, {**CALL, "id": "c2"}]), "tools": [TOOL], "parallel_tool_calls": False},
        "has 2 calls, but parallel_tool_calls is false",
    ),
    "function_call": (answered(function_call={"name": "f", "arguments": "{}"}), "function_call"),
    "a user's function_call": (
        {"messages": [{**USER, "function_call": {"name": "f"}}, ANSWER]},
        r"\[0\].function_call",
    ),
    "function turn": (
        {"messages": [USER, {"role": "function", "name": "f", "content": "x"}, ANSWER]},
        "role is 'function'",
    ),
    "row's functions": ({"messages": [USER, ANSWER], "functions": [{"name": "f"}]}, "functions"),
    "row's function_call": ({"messages": [USER, ANSWER], "function_call": "auto"}, "function_call"),
    "image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER]},
        r"content\[0\] is of type 'image_url'",
    ),
    "image with a text": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}, ANSWER]},
        "'image_url'",
    ),
    "sound": (answered(audio={"id": "a"}), r"messages\[1\].audio"),
    "refusal beside content": (answered(refusal="no"), "refusal stands beside"),
    "a user's refusal": ({"messages": [{"role": "user", "content": None, "refusal": "no"}, ANSWER]}, "refusal"),
    "weight of a word": (answered(weight="1"), "expected 0 or 1"),
    "call id at a user": ({"messages": [{**USER, "tool_call_id": "c1"}, ANSWER]}, "only the role 'tool'"),
    "result without its call": ({"messages": [USER, {"role": "tool", "content": "x"}, ANSWER]}, "tool_call_id is null"),
    "result of a list": (
        {"messages": [USER, {"role": "tool", "tool_call_id": ["c"], "content": "x"}, ANSWER]},
        "tool_call_id",
    ),
    "two forms": ({"messages": [USER, ANSWER], "prompt": "a", "completion": "b"}, "both 'messages' and 'completion'"),
    "calls that are no list": (answered(tool_calls=5), "tool_calls is 5"),
    "tools that are no list": ({"messages": [USER, ANSWER], "tools": 5}, "tools is 5"),
    "parallel that is no boolean": (
        {"messages": [USER, ANSWER], "parallel_tool_calls": "no"},
        "parallel_tool_calls is 'no'",
    ),
    "a word of a megabyte": ({"messages": [{"role": "x" * 1_000_000, "content": "x"}]}, "^.{0,300}$"),
    "two calls of one id": (
        {
            "messages": [
                USER,
                {**ANSWER, "tool_calls": [CALL, CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "x"},
            ],
            "tools": [TOOL],
        },
        r"messages\[1\] has two calls of the id 'c1'",
    ),
    "a call without an id": (
        {"messages": [USER, {**ANSWER, "tool_calls": [{**CALL, "id": ""}]}, USER, ANSWER], "tools": [TOOL]},
        r"messages\[1\].tool_calls: expected",
    ),
    "an argument twice": (
        answered(tool_calls=[{**CALL, "function": {"name": "find", "arguments": '{"a": 1, "a": 2}'}}]),
        "the arguments of the call 'find' are no JSON: the key 'a' stands twice",
    ),
    "NaN in arguments": (
        answered(tool_calls=[{**CALL, "function": {"name": "find", "arguments": '{"a": NaN}'}}]),
        "NaN is no JSON",
    ),
    "a schema as text": (
        {"messages": [USER, ANSWER], "tools": [{"type": "function", "function": {"name": "f", "parameters": "{}"}}]},
        r"tools\[0\].function.parameters is '{}'; expected an object",
    ),
    "a tool that nobody can offer": (
        {"messages": [USER, ANSWER], "tools": [{"type": "function", "function": {"name": "a.b"}}]},
        r"tools\[0\].function.name is 'a.b'",
    ),
    "a tool of another kind": (
        {"messages": [USER, ANSWER], "tools": [{"type": "web_search", "function": {"name": "f"}}]},
        r"tools\[0\]: expected",
    ),
    "two tools of one name": ({"messages": [USER, ANSWER], "tools": [TOOL, TOOL]}, "two tools have the same name"),
    "deep arguments": (
        answered(tool_calls=[{**CALL, "function": {"name": "find", "arguments": "[" * 100_000}}]),
        "nested|no JSON",
    ),
}


@pytest.mark.parametrize(("content", "complaint"), LOST.values(), ids=LOST.keys())
def test_what_would_be_lost_is_refused_by_name(content: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        row(content)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tools": [TOOL]}, "supervised"),
        ({"input": {"messages": [USER], "tools": [TOOL]}}, "supervised"),
        ({"input": {"messages": [USER], "functions": [{"name": "f"}]}}, "supervised"),
        ({"preferred_output": [{**ANSWER, "tool_calls": [CALL]}]}, "supervised"),
        ({"preferred_output": [{**ANSWER, "function_call": {"name": "f"}}]}, r"preferred_output\[0\].function_call"),
        ({"preferred_output": [{**ANSWER, "weight": 0}]}, r"preferred_output\[0\].weight is 0"),
        ({"preferred_output": [ANSWER, ANSWER]}, "2 turn"),
        ({"non_preferred_output": None}, "non_preferred_output"),
    ],
)
def test_pairs_lose_nothing_either(change: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        row(PAIR | change, "dpo")


def test_fields_that_nothing_reads_are_told_of() -> None:
    named = {"messages": [{**USER, "name": "Ann"}, {**ANSWER, "reasoning_content": "hm"}], "source": "crm", "tools": []}
    assert row(named).unread == ("messages[].reasoning_content", "source")
    assert row({"prompt": "a", "completion": "b", "input": "c"}).unread == ("input",)
    requested = {"messages": [{**USER, "weight": 1}, {**ANSWER, "weight": 1}], "tool_choice": "auto"}
    weight = "messages[].weight of turns that are not the assistant's"
    assert row({**requested, "response_format": {"type": "text"}}).unread == (weight, "response_format", "tool_choice")
    pair = row({**PAIR, "id": 5, "input": {"messages": [{**USER, "name": "Ann"}], "lang": "en"}}, "dpo")
    assert isinstance(pair, Pair)
    assert pair.unread == ("id", "input.lang")
    assert row({"messages": [{**USER, "name": "Ann"}], "anything": 1}, "reinforcement").unread == ()
    with pytest.raises(ValueError, match=r"messages\[0\].name is 5; expected a text"):
        row({"messages": [{**USER, "name": 5}, ANSWER]})


def test_fields_within_parts_calls_and_tools_are_told_of_too() -> None:
    part = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}, "image_url": None}
    call = {**CALL, "custom": {"input": "x"}, "function": {**CALL["function"], "output": "y", "parsed_arguments": {}}}
    tool = {**TOOL, "strict": True, "function": {**TOOL["function"], "returns": "z"}}
    messages = [{"role": "user", "content": [part]}, {**ANSWER, "tool_calls": [call]}]
    assert row({"messages": messages, "tools": [tool]}).unread == (
        "messages[].content[].cache_control",
        "messages[].tool_calls[].custom",
        "messages[].tool_calls[].function.output",
        "tools[].function.returns",
        "tools[].strict",
    )


def test_names_are_kept_in_prompts_of_every_method() -> None:
    """A template that shows them shows them in serving."""
    ann = {**USER, "name": "Ann"}
    pair, task = row({**PAIR, "input": {"messages": [ann]}}, "dpo"), row({"messages": [ann]}, "reinforcement")
    assert isinstance(pair, Pair)
    assert isinstance(task, Task)
    assert [message.name for message in (*pair.prompt, *task.prompt)] == ["Ann", "Ann"]


def test_empty_system_and_tool_turns_are_taken() -> None:
    result = [{**ANSWER, "content": None, "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c1", "content": ""}]
    chat = {"messages": [{"role": "system", "content": ""}, USER, *result, ANSWER], "tools": [TOOL]}
    assert row(chat).answer == "Hello"


STRINGS = ("", "x", "\0", "\u2028", "\u202e\u200f", "\x1b[31m", "w" * 10_000, "null", "{{", "\r\n")
VALUES = (None, True, False, 0, 1, -1, 0.5, 1e308, [], {}, [None], [[]], {"a": None}, {"text": 5}, *STRINGS)


def _mutated(value: Any, dice: random.Random) -> Any:
    """The value with something in it replaced."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(list(value))
        return {**value, key: _mutated(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.85:
        place = dice.randrange(len(value))
        return [*value[:place], _mutated(value[place], dice), *value[place + 1 :]]
    return dice.choice(VALUES)


@pytest.mark.parametrize("kind", ["supervised", "dpo", "reinforcement"])
def test_whatever_stands_in_a_row_it_is_read_or_refused(kind: Kind) -> None:
    """20,000 mutants of good rows: another error than ValueError would end the job as the server's fault."""
    full = {
        "messages": [
            padded(USER),
            padded({**ANSWER, "tool_calls": [CALL]}),
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "x"}]},
            ANSWER,
        ],
        "tools": [TOOL],
        "parallel_tool_calls": True,
    }
    seeds: dict[Kind, list[Any]] = {
        "supervised": [
            full,
            {"prompt": "a", "completion": "b", "system": "c"},
            {"instruction": "a", "input": "b", "output": "c"},
        ],
        "dpo": [PAIR],
        "reinforcement": [{"messages": [padded(USER)], "tools": None, "answer": [1]}],
    }
    dice, read = random.Random(0), 0
    for _ in range(20_000):
        content = _mutated(_mutated(dice.choice(seeds[kind]), dice), dice)
        try:
            one = row(content, kind)
        except ValueError as error:
            said = str(error)
        else:
            assert one.text is not None
            assert one.answer is not None
            read, said = read + 1, ""
        assert len(said) < 500
    assert read > 100
