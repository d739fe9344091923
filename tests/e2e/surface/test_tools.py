"""Tools and structured answers on the real engine, through the openai SDK."""

import json
import re
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall, ChatCompletionMessageParam
from openai.types.chat.chat_completion import ChatCompletion
from pydantic import BaseModel

BASE = "SmolLM2-135M-Instruct"
PARIS: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Paris?"}]


def tool(name: str, **properties: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": f"{name} of a city", "parameters": schema}}


WEATHER = tool("get_weather", city="string")
TIME = tool("get_time", city="string", hours="integer")
WRITTEN = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich \\"old\\" town"}}\n</tool_call>'


def ask(client: openai.OpenAI, **changes: Any) -> Any:
    request = {"model": BASE, "messages": PARIS, "temperature": 0, "max_tokens": 60, "tools": [WEATHER, TIME]}
    return client.chat.completions.create(**{**request, **changes})


def calls(completion: ChatCompletion) -> list[tuple[str, dict[str, Any]]]:
    found = completion.choices[0].message.tool_calls or []
    assert all(re.fullmatch(r"call_\w{24}", call.id) for call in found)
    return [
        (call.function.name, json.loads(call.function.arguments))
        for call in found
        if isinstance(call, ChatCompletionMessageFunctionToolCall)
    ]


def test_a_call_the_model_writes_is_read_out_of_its_answer_streamed_or_not(client: openai.OpenAI) -> None:
    """The model is made to write a call, with all that can go wrong in its JSON, as a tool-tuned one would."""
    loose = {**WEATHER, "function": {**WEATHER["function"], "strict": False}}
    for before in ("", "Let me look.\n"):
        said = {"tools": [loose], "extra_body": {"structured_outputs": {"choice": [before + WRITTEN]}}}
        whole = ask(client, **said)
        assert calls(whole) == [("get_weather", {"city": 'Zürich "old" town'})]
        assert whole.choices[0].finish_reason == "tool_calls"
        assert (whole.choices[0].message.content or "").strip() == before.strip()
        chunks = list(ask(client, stream=True, **said))
        deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        assert [call.function.name for call in deltas if call.function.name] == ["get_weather"]
        assert [call.id is not None for call in deltas] == [True] + [False] * (len(deltas) - 1)
        assert all(call.index == 0 for call in deltas)
        arguments = "".join(call.function.arguments or "" for call in deltas)
        assert json.loads(arguments) == {"city": 'Zürich "old" town'}
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        assert "<tool_call>" not in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_a_forced_call_follows_its_schema(client: openai.OpenAI) -> None:
    named = ask(client, tool_choice={"type": "function", "function": {"name": "get_time"}})
    ((name, arguments),) = calls(named)
    assert name == "get_time"
    assert set(arguments) == {"city", "hours"}
    assert isinstance(arguments["hours"], int)
    assert named.choices[0].finish_reason == "stop", "as OpenAI, where the call was asked for by name"
    required = ask(client, tool_choice="required", parallel_tool_calls=False)
    assert len(calls(required)) == 1
    assert calls(required)[0][0] in ("get_weather", "get_time")
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_time"}}]}
    some = ask(client, tool_choice={"type": "allowed_tools", "allowed_tools": allowed}, parallel_tool_calls=False)
    assert [name for name, _ in calls(some)] == ["get_time"]
    chunks = list(ask(client, tool_choice="required", parallel_tool_calls=False, stream=True))
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert json.loads("".join(call.function.arguments or "" for call in deltas))


def test_none_and_auto_leave_the_model_its_words(client: openai.OpenAI) -> None:
    plain = ask(client, tools=openai.omit, max_tokens=20)
    silent = ask(client, tool_choice="none", max_tokens=20)
    assert calls(silent) == []
    assert silent.choices[0].message.content == plain.choices[0].message.content
    assert ask(client, max_tokens=20).usage.prompt_tokens > plain.usage.prompt_tokens + 100, "the tools are shown"


def test_results_are_read(client: openai.OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    turns = [*PARIS, {"role": "assistant", "content": None, "tool_calls": [call]}]
    result = {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "Rain, 7 degrees."}]}
    answer = ask(client, messages=[*turns, result])
    assert answer.choices[0].finish_reason in ("stop", "length")
    with pytest.raises(openai.BadRequestError, match="call_1"):
        ask(client, messages=[*turns, *PARIS])
    with pytest.raises(openai.BadRequestError, match="must be a response to a preceding message"):
        ask(client, messages=[*PARIS, result])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "no good"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"functions": [WEATHER["function"]]}, "functions"),
    ],
)
def test_bad_tools_are_refused_by_name(change: dict[str, Any], param: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, **change)
    assert raised.value.param == param


class Person(BaseModel):
    name: str
    age: int


def test_json_object_and_strict_schemas_hold(client: openai.OpenAI) -> None:
    told = [{"role": "user", "content": "Describe Ann, who is 30 years old, in JSON."}]
    some = ask(client, tools=openai.omit, messages=told, max_tokens=100, response_format={"type": "json_object"})
    if some.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(some.choices[0].message.content), dict)
    parsed = client.chat.completions.parse(
        model=BASE, messages=[{"role": "user", "content": "Ann is 30 years old."}], temperature=0, max_tokens=100,
        response_format=Person,
    ).choices[0].message.parsed  # fmt: skip
    assert isinstance(parsed, Person)
    schema = {"name": "colour", "schema": {"type": "string", "enum": ["red", "green"]}}
    sky = [{"role": "user", "content": "Say: blue"}]
    strict = {"type": "json_schema", "json_schema": {**schema, "strict": True}}
    held = ask(client, tools=openai.omit, messages=sky, response_format=strict)
    assert json.loads(held.choices[0].message.content) in ("red", "green")
    loose = {"type": "json_schema", "json_schema": {**schema, "strict": False}}
    free = ask(client, tools=openai.omit, messages=sky, response_format=loose, max_tokens=40)
    assert free.choices[0].message.content not in ('"red"', '"green"'), "a schema that is not strict is not forced"


def test_a_schema_the_grammar_cannot_hold_is_refused_clearly(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, tools=openai.omit, response_format=wanted)
    assert "Traceback" not in str(raised.value)
    assert "vllm" not in str(raised.value).lower()


def test_vllms_own_fields_work_through_extra_body(client: openai.OpenAI) -> None:
    for fields in ({"guided_choice": ["yes", "no"]}, {"structured_outputs": {"choice": ["yes", "no"]}}):
        answer = ask(client, tools=openai.omit, extra_body=fields)
        assert answer.choices[0].message.content in ("yes", "no")
    matched = ask(client, tools=openai.omit, extra_body={"guided_regex": r"\d{3}-\d{4}"})
    assert re.fullmatch(r"\d{3}-\d{4}", matched.choices[0].message.content)
    first = ask(client, tools=openai.omit, temperature=1.9, max_tokens=6, extra_body={"top_k": 1})
    greedy = ask(client, tools=openai.omit, max_tokens=6)  # few: further on, two tokens may tie in bf16
    assert first.choices[0].message.content == greedy.choices[0].message.content
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, extra_body={"chat_template_kwargs": {"tokenize": True}})
    assert "no variable of a chat template" in str(raised.value)
    for field, value in (("use_beam_search", True), ("prompt_logprobs", 1), ("chat_template", "{{ 1 }}")):
        with pytest.raises(openai.BadRequestError) as raised:
            ask(client, extra_body={field: value})
        assert (raised.value.param, raised.value.code) == (field, "unsupported_parameter")
