"""The Responses API: kept conversations, streams of typed events, calls; through the openai SDK."""

import json
from typing import Any

import openai
import pytest
from openai.types.responses import FunctionToolParam, Response
from pydantic import BaseModel

from tests.e2e.conftest import Running

BASE = "SmolLM2-135M-Instruct"
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": None,
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def ask(client: openai.OpenAI, **changes: Any) -> Any:
    request = {"model": BASE, "input": "What is the capital of France?", "temperature": 0, "max_output_tokens": 40}
    return client.responses.create(**{**request, **changes})


def test_a_conversation_is_kept_goes_on_and_is_forgotten(client: openai.OpenAI) -> None:
    first = ask(client, instructions="Be brief.", metadata={"a": "b"})
    assert first.output_text == "The capital of France is Paris."
    assert first.usage.output_tokens == 8
    assert client.responses.retrieve(first.id) == first
    second = ask(client, input="And of Italy?", previous_response_id=first.id)
    assert second.usage.input_tokens > first.usage.input_tokens
    items = list(client.responses.input_items.list(second.id))
    assert [item.type for item in items] == ["message"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, previous_response_id=second.id)
    assert raised.value.param == "previous_response_id"
    unkept = ask(client, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unkept.id)


def test_a_stream_says_the_same_event_by_event(client: openai.OpenAI) -> None:
    events = list(ask(client, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text == "The capital of France is Paris."
    assert client.responses.retrieve(events[-1].response.id) == events[-1].response
    cut = list(ask(client, stream=True, max_output_tokens=2))[-1]
    assert cut.type == "response.incomplete"
    assert cut.response.incomplete_details.reason == "max_output_tokens"


def test_calls_and_their_outputs(client: openai.OpenAI) -> None:
    asked = ask(client, tools=[WEATHER], tool_choice={"type": "function", "name": "get_weather"})
    (call,) = asked.output
    assert call.type == "function_call"
    assert set(json.loads(call.arguments)) == {"city"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
    answered = ask(client, previous_response_id=asked.id, input=[result], tools=[WEATHER], tool_choice="none")
    assert answered.output[0].type == "message"
    with pytest.raises(openai.BadRequestError, match="No tool output found"):
        ask(client, previous_response_id=asked.id)
    with client.responses.stream(
        model=BASE, input="Weather in Paris?", tools=[WEATHER], tool_choice="required", parallel_tool_calls=False,
        temperature=0, max_output_tokens=200,
    ) as stream:  # fmt: skip
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["function_call"]


class Person(BaseModel):
    name: str
    age: int


def test_structured_answers_parse(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(
        model=BASE, input="Ann is 30 years old.", text_format=Person, temperature=0, max_output_tokens=100
    )
    assert isinstance(parsed.output_parsed, Person)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"background": True}, "background"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"input": [{"type": "image_generation_call", "id": "x"}]}, "input.0"),
        ({"include": ["web_search_call.results"]}, "include"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
        ({"input": "word " * 20_000}, "input"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(change: dict[str, Any], param: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, extra_body=change)
    assert raised.value.param == param


def test_logprobs_where_they_are_included(client: openai.OpenAI) -> None:
    answer: Response = ask(client, include=["message.output_text.logprobs"], top_logprobs=2)
    part: Any = answer.output[0]
    assert [token.token for token in part.content[0].logprobs][:2] == ["The", " capital"]
    assert len(part.content[0].logprobs[0].top_logprobs) == 2


def test_events_are_named_for_clients_without_the_sdk(running: Running) -> None:
    body = {"model": BASE, "input": "Hi", "stream": True, "max_output_tokens": 3}
    with running.http() as http:
        lines = http.post("/v1/responses", json=body).text.splitlines()
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    told = [json.loads(line.removeprefix("data: "))["type"] for line in lines if line.startswith("data: ")]
    assert names == told
