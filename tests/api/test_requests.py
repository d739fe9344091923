"""Requests as OpenAI takes them: null is absent, the SDK's own objects are input, every documented value is taken."""

import copy
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessage, ParsedChatCompletionMessage
from tokenizers.processors import TemplateProcessing

from adapters.base import BaseModel
from tests.inprocess import InProcess, in_process
from tests.scripted import ScriptedEngine

CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS = "chat/completions", "responses", "completions", "embeddings"
HI = [{"role": "user", "content": "Hi"}]
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}


def body(server: InProcess, path: str, change: dict[str, Any]) -> dict[str, Any]:
    wanted: dict[str, dict[str, Any]] = {
        CHAT: {"messages": HI, "max_tokens": 2},
        RESPONSES: {"input": "Hi", "max_output_tokens": 2},
        COMPLETIONS: {"prompt": "Hi", "max_tokens": 2},
    }
    return {"model": server.services.catalog.base.name, **wanted.get(path, {}), **change}


def post(server: InProcess, path: str, change: dict[str, Any]) -> Any:
    with server.http() as http:
        return http.post(f"/v1/{path}", json=body(server, path, change))


def nullable(path: str) -> dict[str, None]:
    """Every field of a request but those it needs, as null."""
    from server.openai.chat.wire import ChatRequest
    from server.openai.completions import CompletionRequest
    from server.openai.responses.wire import ResponseRequest
    from tests.server.openai.test_differences import OPENAIS, fields

    kind: Any = {CHAT: ChatRequest, RESPONSES: ResponseRequest, COMPLETIONS: CompletionRequest}[path]
    theirs = set().union(*(fields(one) for one in OPENAIS[path.partition("/")[0]]))
    names = {name for name in (*theirs, *kind.model_fields) if "." not in name and "[" not in name}
    return dict.fromkeys(sorted(names - {"model", "messages", "input"}))


@pytest.mark.parametrize("path", [CHAT, RESPONSES, COMPLETIONS])
def test_null_is_absent_in_every_field(path: str, served: InProcess) -> None:
    fields = nullable(path)
    assert len(fields) > 20
    assert post(served, path, {**fields, **({"max_tokens": 2} if path != RESPONSES else {})}).status_code == 200
    assert path != COMPLETIONS or served.engine.asked[-1].prompt == [1], "no prompt: a text begins"


NESTED_NULLS: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"stream_options": {"include_usage": None, "include_obfuscation": None}}),
    (CHAT, {"messages": [{**HI[0], "name": None, "tool_calls": None, "tool_call_id": None, "audio": None}]}),
    (CHAT, {"tools": [{"type": "function", "function": {**FUNCTION, "description": None, "strict": None}}]}),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": None}, "custom": None}]}),
    (CHAT, {"tools": [], "tool_choice": None}),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": None, "strict": None}}}),
    (CHAT, {"response_format": {"type": "text", "json_schema": None}}),
    (RESPONSES, {"text": {"format": None, "verbosity": None}}),
    (RESPONSES, {"text": {"format": {"type": "json_schema", "name": "a", "schema": {}, "description": None}}}),
    (RESPONSES, {"reasoning": {"effort": None, "summary": None, "generate_summary": None, "context": None}}),
    (RESPONSES, {"reasoning": {"effort": "none", "context": "auto"}}),
    (RESPONSES, {"tools": [{"type": "function", **FUNCTION, "strict": None, "defer_loading": None}]}),
    (RESPONSES, {"input": [{"role": "user", "content": "Hi", "id": None, "status": None, "phase": None}]}),
    (RESPONSES, {"input": [*HI, {"role": "assistant", "content": None}, {"type": None, **HI[0]}]}),
    (CHAT, {"messages": [*HI, {"role": "assistant", "content": None, "tool_calls": None, "refusal": None}, *HI]}),
    (CHAT, {"messages": [*HI, {"role": "assistant"}, *HI]}),
    (CHAT, {"messages": [*HI, {"role": "assistant", "content": []}, *HI]}),
    (CHAT, {"nobody_knows": None, "num_ctx": 4096}),
    (COMPLETIONS, {"prompt": ["", "a"], "add_special_tokens": True}),
    (COMPLETIONS, {"best_of": 0}),
    *((path, {"metadata": {"a": "b", "c": None}, "logit_bias": {"5": 1, "6": None}}) for path in (CHAT, COMPLETIONS)),
    (RESPONSES, {"metadata": {"a": None}}),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema_": {"type": "object"}}}}),
    (RESPONSES, {"text": {"format": {"type": "json_schema", "name": "a", "schema_": {"type": "object"}}}}),
]


@pytest.mark.parametrize(("path", "change"), NESTED_NULLS, ids=str)
def test_null_is_absent_within_objects(path: str, change: dict[str, Any], served: InProcess) -> None:
    assert post(served, path, change).status_code == 200


def test_the_sdks_messages_are_the_next_requests(served: InProcess, client: openai.OpenAI) -> None:
    model = served.services.catalog.base.name
    said = client.chat.completions.create(model=model, messages=HI).choices[0].message  # pyright: ignore
    call: Any = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    called = ChatCompletionMessage(role="assistant", content=None, tool_calls=[call])
    parsed = ParsedChatCompletionMessage[None](role="assistant", content="{}", parsed=None, annotations=[])
    refused = ChatCompletionMessage(role="assistant", content=None, refusal="I will not.")
    tool = {"role": "tool", "tool_call_id": "c", "content": "x"}
    for dumped in ("model_dump", "to_dict"):
        turns = [getattr(one, dumped)() for one in (said, called, parsed, refused)]
        messages: Any = [*HI, turns[0], *HI, turns[1], tool, turns[2], turns[3], *HI]
        client.chat.completions.create(model=model, messages=messages)
    prompt = served.engine.tokenizer.decode(served.engine.asked[-1].prompt)
    assert "<|im_start|>assistant\nI will not.<|im_end|>" in prompt


def test_the_sdks_items_are_the_next_requests(served: InProcess, client: openai.OpenAI) -> None:
    model = served.services.catalog.base.name
    tools: Any = [{"type": "function", **FUNCTION, "strict": True}]
    answer = client.responses.create(model=model, input="Hi", tools=tools)
    items: Any = [one.model_dump() for one in answer.output]
    again: Any = [one.model_dump() for one in answer.tools]
    called: Any = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "caller": None}
    output: Any = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]}
    client.responses.create(model=model, input=[*items, called, output], tools=again)
    listed = client.responses.input_items.list(answer.id)
    client.responses.create(model=model, input=[one.model_dump() for one in listed.data])  # pyright: ignore


TAKEN: list[dict[str, Any]] = [
    *({"temperature": value} for value in (0, 1e-8, 1, 2, 2.0)),
    *({"top_p": value} for value in (0, 0.5, 1)),
    *({"n": value} for value in (1, 128)),
    *({"presence_penalty": value, "frequency_penalty": -value} for value in (-2, 0, 2)),
    *({"seed": value} for value in (0, -1, 2**63 - 1, -(2**63))),
    *({"stop": value} for value in ("x", [], ["a", "b", "c", "d"], ["<|im_end|>"], "x" * 100_000)),
    *({"logit_bias": value} for value in ({}, {"5": 100, "7": -100}, {"5": 0.5})),
    {"user": "u" * 100_000},
]


@pytest.mark.parametrize("change", TAKEN, ids=lambda change: str(change)[:60])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_every_documented_value_is_taken(path: str, change: dict[str, Any], served: InProcess) -> None:
    answer = post(served, path, change)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["choices"]) == change.get("n", 1)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (CHAT, {"logprobs": True, "top_logprobs": 0}),
        (CHAT, {"logprobs": True, "top_logprobs": 20}),
        (CHAT, {"logprobs": False, "top_logprobs": 0}),
        (CHAT, {"max_tokens": None, "max_completion_tokens": 1}),
        (CHAT, {"max_tokens": 3, "max_completion_tokens": 3}),
        (CHAT, {"modalities": ["text"], "reasoning_effort": "none", "verbosity": "medium", "store": False}),
        *((CHAT, {"service_tier": tier}) for tier in ("auto", "default", "flex", "priority")),
        (CHAT, {"prediction": {"type": "content", "content": "x"}, "prompt_cache_key": "k", "safety_identifier": "s"}),
        (CHAT, {"metadata": {"k" * 64: "v" * 512, **{str(number): "" for number in range(15)}}}),
        *((COMPLETIONS, {"logprobs": number}) for number in (0, 5)),
        (COMPLETIONS, {"best_of": 2, "n": 2, "suffix": ""}),
        (COMPLETIONS, {"echo": True, "max_tokens": 0}),
        (COMPLETIONS, {"prompt": [[5, 6], [7]]}),
        (RESPONSES, {"truncation": "disabled", "background": False, "max_tool_calls": 3, "store": False}),
        (RESPONSES, {"include": ["reasoning.encrypted_content", "message.output_text.logprobs"], "top_logprobs": 20}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_every_documented_combination_is_taken(path: str, change: dict[str, Any], served: InProcess) -> None:
    answer = post(served, path, change)
    assert answer.status_code == 200, answer.text


SCHEMA = {"type": "json_schema", "json_schema": {"name": "n"}}
LOOP = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
DEEP: dict[str, Any] = json.loads('{"a":' * 70 + "1" + "}" * 70)
TOOL = {"type": "function", "function": {"name": "f"}}
NO_TOOLS = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "x"}
REFUSED: list[tuple[str, dict[str, Any], str | None, str]] = [
    *((CHAT, {"messages": [{"role": "user", "content": [part]}]}, "messages.0.content", "no object with a type")
      for part in ("a", 5, None, {"text": "a"}, {"type": 5})),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, "messages.0.content",
     "its 'text' is no string"),
    (CHAT, {"top_logprobs": 5}, "top_logprobs", "needs 'logprobs' to be true"),
    (CHAT, {"stop": ""}, "stop", "empty string"),
    (COMPLETIONS, {"stop": ["a", ""]}, "stop", "empty string"),
    *((CHAT, {"chat_template_kwargs": {name: []}}, "chat_template_kwargs", "no variable")
      for name in ("messages", "tools", "documents", "add_generation_prompt")),
    (CHAT, {"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}}, "tool_choice.function", "Missing"),
    (CHAT, {"tools": [TOOL], "tool_choice": NO_TOOLS}, "tool_choice.allowed_tools.tools", "at least 1"),
    (RESPONSES, {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice.tools", "least"),
    (RESPONSES, {"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", "Missing"),
    (RESPONSES, {"input": [RESULT]}, "input", "No tool call found"),
    (COMPLETIONS, {"prompt": ["a"] * 2049}, "prompt", "2049 prompts; expected 1 to 2048"),
    (CHAT, {"guided_choice": ["a"], "response_format": {"type": "json_object"}}, "response_format", "both"),
    (RESPONSES, {"guided_choice": ["a"], "text": {"format": {"type": "json_object"}}}, "text.format", "both"),
    (COMPLETIONS, {"tools": [TOOL]}, "tools", "/v1/chat/completions"),
    (CHAT, {"instructions": "Be kind."}, "instructions", "developer"),
    (RESPONSES, {"reasoning_effort": "low"}, "reasoning_effort", "`reasoning.effort`"),
    (CHAT, {"messages": "Hi"}, "messages", "expected an array, got 'Hi'."),
    (CHAT, {"messages": []}, "messages", "at least 1 of them, got an array of 0"),
    (CHAT, {"messages": [5]}, "messages.0", "expected an object, got 5."),
    (CHAT, {"messages": [{"content": "x"}]}, "messages.0.role", "Missing required parameter: 'messages.0.role'."),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "expected a string, got 5."),
    (CHAT, {"messages": [{"role": "user", "content": {}}]}, "messages.0.content", "expected a string, got an object"),
    (CHAT, {"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages.0.role", "'developer'"),
    (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages.[0]", "expected a string, got null"),
    (CHAT, {"messages": [{**HI[0], "content": [{"type": "image_url"}]}]}, "messages.0.content", "text only"),
    (CHAT, {"messages": [{**HI[0], "audio": {"id": "a"}}]}, "messages.0.audio", "text only"),
    (CHAT, {"messages": [*HI, {**HI[0], "function_call": {}}]}, "messages.1.function_call", "tool_calls"),
    (CHAT, {"model": None}, "model", "expected a string, got null"),
    (CHAT, {"stop": 5}, "stop", "expected a string or an array, got 5"),
    (CHAT, {"stop": list("abcde")}, "stop", "a string or at most 4 of them, got an array of 5"),
    (CHAT, {"stop": [5]}, "stop.0", "expected a string, got 5"),
    (CHAT, {"temperature": 2.1}, "temperature", "2 or less, got 2.1"),
    (CHAT, {"temperature": "hot"}, "temperature", "expected a number, got 'hot'"),
    (CHAT, {"top_p": -0.1}, "top_p", "0 or more"),
    (CHAT, {"n": 129}, "n", "128 or less"),
    (CHAT, {"n": 1.5}, "n", "an integer"),
    (CHAT, {"seed": 2**63}, "seed", "below 9223372036854775808"),
    (CHAT, {"max_tokens": 10**30}, "max_tokens", "2147483647 or less"),
    (CHAT, {"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "at the same time"),
    (CHAT, {"logit_bias": {"a": 1}}, "logit_bias.a", "an integer"),
    (CHAT, {"logit_bias": {"1": 101}}, "logit_bias.1", "100 or less"),
    (CHAT, {"logit_bias": {str(number): 1 for number in range(1025)}}, "logit_bias", "at most 1024"),
    (CHAT, {"stream_options": {"include_usage": True}}, "stream_options", "only allowed when 'stream'"),
    (CHAT, {"stream_options": 5}, "stream_options", "expected an object, got 5"),
    (CHAT, {"metadata": {"k" * 65: "v"}}, "metadata." + "k" * 65, "at most 64"),
    (CHAT, {"metadata": {"k": 5}}, "metadata.k", "expected a string"),
    (CHAT, {"metadata": {str(number): "" for number in range(17)}}, "metadata", "at most 16 of them, got an object"),
    (CHAT, {"tools": {}}, "tools", "expected an array"),
    (CHAT, {"tools": [{"type": "function"}]}, "tools.0.function", "Missing"),
    (CHAT, {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0.type", "'function'"),
    (CHAT, {"tools": [{"type": "function", "function": {**FUNCTION, "parameters": DEEP}}]},
     "tools.0.function.parameters", "64 levels"),
    (CHAT, {"tool_choice": "sometimes"}, "tool_choice", "one of 'none', 'auto', 'required' or an object"),
    (CHAT, {"response_format": {"type": "xml"}}, "response_format", "type"),
    (CHAT, {"response_format": {}}, "response_format", "type"),
    (CHAT, {"response_format": "json"}, "response_format", "object"),
    (CHAT, {"response_format": {**SCHEMA, "json_schema": {"name": "a b"}}}, "response_format.json_schema.name", "a"),
    (CHAT, {"structured_outputs": {"bogus": 1}}, "structured_outputs.bogus", "Unknown parameter"),
    (CHAT, {"max_output_tokens": 5}, "max_output_tokens", "Its name is `max_completion_tokens` here"),
    (CHAT, {"response_format": {"type": "json_object", "schema": {}}}, "response_format.schema", "Unknown parameter"),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": LOOP}}},
     "response_format.json_schema.schema", "leads to itself"),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/$defs/x"}}}]},
     "tools.0.function.parameters", "names nothing in the schema"),
    (COMPLETIONS, {"max_completion_tokens": 5}, "max_completion_tokens", "Its name is `max_tokens` here"),
    (COMPLETIONS, {"prompt": [[], [1]]}, "prompt", "has no tokens"),
    (RESPONSES, {"response_format": {"type": "text"}}, "response_format", "Its place is `text.format` here"),
    (RESPONSES, {"input": None, "instructions": "Be kind."}, "input", "previous_response_id"),
    (RESPONSES, {"input": []}, "input", "previous_response_id"),
    (RESPONSES, {"input": [{"type": "reasoning", "summary": []}, *HI]}, "input.0", "understood, not 'reasoning'"),
    (CHAT, {"guided_json": 5}, "guided_json", "an object or a string"),
    (CHAT, {"guided_choice": []}, "guided_choice", "at least 1"),
    (CHAT, {"top_k": 10**30}, "top_k", "2147483647 or less"),
    (CHAT, {"repetition_penalty": 0}, "repetition_penalty", "0.001 or more"),
    (CHAT, {"store": True}, "store", "not supported"),
    (CHAT, {"moderation": {"model": "m"}}, "moderation", "no moderation model"),
    (COMPLETIONS, {"prompt": {}}, "prompt", "expected a string or an array"),
    (COMPLETIONS, {"logprobs": 21}, "logprobs", "20 or less"),
    (COMPLETIONS, {"suffix": "x"}, "suffix", "write on"),
    (RESPONSES, {"input": 5}, "input", "expected a string or an array, got 5"),
    (RESPONSES, {"input": [{"role": "user"}]}, "input.0.content", "Missing"),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}, "input.0", "only messages"),
    (RESPONSES, {"truncation": "auto"}, "truncation", "left out"),
    (RESPONSES, {"reasoning": {"summary": "auto"}}, "reasoning", "do not reason"),
    (RESPONSES, {"tools": [{"type": "function", **FUNCTION, "defer_loading": True}]}, "tools.0.defer_loading", "shown"),
    (RESPONSES, {"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm", "always answered"),
    (RESPONSES, {"text": {"verbosity": "low"}}, "text.verbosity", "expected 'medium'"),
    (EMBEDDINGS, {"model": "all-MiniLM-L6-v2", "input": {}}, "input", "expected a string or an array, got an object"),
    (EMBEDDINGS, {"model": "all-MiniLM-L6-v2", "input": [1.5]}, "input.0", "expected"),
    (EMBEDDINGS, {"model": "all-MiniLM-L6-v2", "input": "x", "encoding_format": "int8"}, "encoding_format", "'float'"),
]  # fmt: skip
FRAMEWORKS = (
    "pydantic",
    "Input should",
    "valid dictionary",
    "instance of",
    "fastapi",
    "vllm",
    "UploadFile",
    "NoneType",
)


@pytest.mark.parametrize(("path", "change", "param", "says"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_is_wrong_is_said_in_the_users_words(
    path: str, change: dict[str, Any], param: str | None, says: str, served: InProcess
) -> None:
    answer = post(served, path, change)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert says in error["message"], error
    assert not any(word in error["message"] for word in FRAMEWORKS), error


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_has_not_are_refused_and_never_written(number: str, served: InProcess) -> None:
    tool = f'{{"type": "function", "name": "f", "parameters": {{"maximum": {number}}}}}'
    model = json.dumps(served.services.catalog.base.name)
    with served.http() as http:
        for field in (f'"tools": [{tool}]', f'"temperature": {number}', f'"repetition_penalty": {number}'):
            answer = http.post("/v1/responses", content=f'{{"model": {model}, "input": "Hi", {field}}}')
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["param"] is not None


ARGUMENTS = ('{"contents": "abc', "", "null", "[1]", "not json", '{"a": 1}{"b": 2}', '"text"', None)


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_a_conversation_goes_on_after_a_call_that_was_cut(arguments: str | None, served: InProcess) -> None:
    call = {"id": "c", "type": None, "index": None, "function": {"name": "f", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "c", "content": "bad"}
    turns = [*HI, {"role": "assistant", "content": None, "tool_calls": [call]}, result, *HI]
    answer = post(served, CHAT, {"messages": turns, "tools": [{"type": "function", "function": FUNCTION}]})
    assert answer.status_code == 200, answer.text
    prompt = served.engine.tokenizer.decode(served.engine.asked[-1].prompt)
    shown = {"": "{}", "null": "{}", "[1]": "[1]", None: "{}"}.get(arguments) or json.dumps(arguments)
    assert f'{{"name": "f", "arguments": {"" if arguments == chr(34) + "text" + chr(34) else shown}' in prompt
    items = [{"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}]
    output = {"type": "function_call_output", "call_id": "c", "output": "bad"}
    assert post(served, RESPONSES, {"input": [*items, output, *HI]}).status_code == 200


def test_a_response_goes_on_without_input(served: InProcess) -> None:
    first = post(served, RESPONSES, {"input": "Hi"}).json()
    again = post(served, RESPONSES, {"input": None, "previous_response_id": first["id"]})
    assert again.status_code == 200, again.text


def test_no_token_is_a_completion_too(served: InProcess) -> None:
    answer = post(served, COMPLETIONS, {"prompt": "", "max_tokens": 0}).json()
    assert [answer["choices"][0][key] for key in ("text", "finish_reason")] == ["", "length"]
    assert answer["usage"]["completion_tokens"] == 0
    assert served.engine.asked[-1].prompt == [1], "no prompt: a text begins"


def test_offsets_point_into_the_text_also_behind_a_token_that_the_tokenizer_adds(
    smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path
) -> None:
    """As Llama's and Gemma's put one before every text."""
    adding = copy.deepcopy(tokenizer)
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{adding.bos_token} $A", special_tokens=[(adding.bos_token, adding.bos_token_id)]
    )
    asked = {"prompt": ["Hi you", f"{adding.bos_token}Hi", ""], "max_tokens": 1, "logprobs": 0, "echo": True}
    with in_process(smollm2_base, ScriptedEngine(tokenizer=adding), tmp_path) as server:
        for choice in post(server, COMPLETIONS, asked).json()["choices"]:
            written = choice["logprobs"]
            places = list(zip(written["text_offset"], written["tokens"], strict=True))[1:]
            assert written["text_offset"][:2] == [0, 0]
            assert all(choice["text"][place:].startswith(token) for place, token in places), choice


def test_offsets_point_into_the_text(served: InProcess) -> None:
    text = "Grüße 🦊🦊 ok"
    choice = post(served, COMPLETIONS, {"prompt": text, "max_tokens": 1, "logprobs": 0, "echo": True}).json()
    choice = choice["choices"][0]
    offsets, tokens = choice["logprobs"]["text_offset"], choice["logprobs"]["tokens"]
    whole = [(place, token) for place, token in zip(offsets, tokens, strict=True) if not token.startswith("bytes:")]
    assert all(choice["text"][place:].startswith(token) for place, token in whole)
    assert {place for place, token in zip(offsets, tokens, strict=True) if token.startswith("bytes:")} == {5, 6, 7}, (
        "one holds the space too"
    )
    assert offsets[-1] == len(text)
