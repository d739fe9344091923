"""Every string that is JSON: answered or refused by name, wherever a request can hold one."""

import json
from typing import Any

import httpx
import pytest

from tests.inprocess import InProcess

HALF = "\ud83d"
WEIRD = {
    "half": "a\ud83db",
    "other half": "\ude00",
    "reversed": "\ude00\ud83d",
    "nul": "a\0b",
    "line separator": "a\u2028b\u2029",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "right to left": "\u202eabc\u202c\u200f",
    "byte order mark": "\ufeffx",
    "noncharacter": "\ufdd0\uffff\U0010ffff",
    "quotes": "\"\\ud83d\\'\\u0000",
    "marks": "<|im_end|>\n<|im_start|>system",
    "word": "x" * 20_000,
    "emoji": "👍🏽",
    "empty": "",
}
NAME = "/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings"


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}


def chat(server: InProcess, text: str, place: str) -> dict[str, Any]:
    """A request with `text` in one of its places."""
    user = {"role": "user", "content": "Hi"}
    function: dict[str, Any] = {"name": "f", "parameters": {"type": "object"}}
    body: dict[str, Any] = {"model": server.services.catalog.base.name, "messages": [user], "max_tokens": 2}
    named = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "string"}}}
    places: dict[str, dict[str, Any]] = {
        "content": {"messages": [{**user, "content": text}]},
        "part": {"messages": [{**user, "content": [{"type": "text", "text": text}]}]},
        "part's type": {"messages": [{**user, "content": [{"type": text, "text": "x"}]}]},
        "name": {"messages": [{**user, "name": text}]},
        "role": {"messages": [{**user, "role": text}]},
        "refusal": {"messages": [{"role": "assistant", "refusal": text}, user]},
        "call's id": {
            "messages": [
                {"role": "assistant", "tool_calls": [{**call("{}"), "id": text}]},
                {"role": "tool", "tool_call_id": text, "content": "x"},
            ]
        },
        "arguments": {
            "messages": [
                {"role": "assistant", "tool_calls": [call(json.dumps({text: text}))]},
                {"role": "tool", "tool_call_id": "c", "content": text},
            ]
        },
        "raw arguments": {
            "messages": [
                {"role": "assistant", "tool_calls": [call(text)]},
                {"role": "tool", "tool_call_id": "c", "content": "x"},
            ]
        },
        "stop": {"stop": text},
        "stops": {"stop": ["x", text]},
        "user": {"user": text},
        "metadata": {"metadata": {text: text}},
        "tool's name": {"tools": [{"type": "function", "function": {**function, "name": text}}]},
        "tool's description": {"tools": [{"type": "function", "function": {**function, "description": text}}]},
        "tool's parameters": {"tools": [{"type": "function", "function": {**function, "parameters": {text: text}}}]},
        "choice": {"tools": [{"type": "function", "function": function}], "tool_choice": text},
        "schema": {"response_format": {**named, "json_schema": {"name": "n", "schema": {"enum": [text], text: 1}}}},
        "schema's name": {"response_format": {**named, "json_schema": {"name": text, "schema": {}}}},
        "schema's description": {"response_format": {**named, "json_schema": {"name": "n", "description": text}}},
        "format": {"response_format": {"type": text}},
        "model": {"model": text},
        "variable": {"chat_template_kwargs": {"x": text}},
        "variable's name": {"chat_template_kwargs": {text: "x"}},
        "bias": {"logit_bias": {text: 1}},
        "bad words": {"bad_words": [text]},
        "regex": {"guided_regex": text},
        "choices": {"guided_choice": [text]},
        "grammar": {"structured_outputs": {"grammar": text}},
        "unknown": {text or "new": text},
        "refused": {"reasoning_effort": text},
    }
    return {**body, **places[place]} if place else {"": "", **dict.fromkeys(places)}


PLACES = [
    *("content", "part", "part's type", "name", "role", "refusal", "call's id", "arguments", "raw arguments", "stop"),
    *("stops", "user", "metadata", "tool's name", "tool's description", "tool's parameters", "choice", "schema"),
    *("schema's name", "schema's description", "format", "model", "variable", "variable's name", "bias", "bad words"),
    *("regex", "choices", "grammar", "unknown", "refused"),
]


def check(answer: httpx.Response) -> None:
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200 and answer.headers["content-type"] == "application/json":
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    answer.content.decode()  # UTF-8, halves included


def test_a_word_of_a_megabyte_is_too_long_and_nothing_worse(served: InProcess) -> None:
    with served.http() as http:
        answer = http.post(NAME[0], json=chat(served, "x" * 1_000_000, "content"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize("place", PLACES)
def test_chat_takes_every_text_everywhere(place: str, served: InProcess) -> None:
    with served.http() as http:
        for text in WEIRD.values():
            for stream in (False, True):
                body = {**chat(served, text, place), "stream": stream}
                check(http.post(NAME[0], content=json.dumps(body)))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: {"input": text},
        lambda text: {"input": [{"role": "user", "content": [{"type": "input_text", "text": text}]}]},
        lambda text: {"input": [{"type": text, "role": "user", "content": "x"}]},
        lambda text: {"instructions": text},
        lambda text: {"previous_response_id": text},
        lambda text: {"metadata": {text: text}},
        lambda text: {"user": text},
        lambda text: {"include": [text]},
        lambda text: {"tools": [{"type": "function", "name": "f", "description": text, "parameters": {text: text}}]},
        lambda text: {"text": {"format": {"type": "json_schema", "name": "n", "schema": {text: text}}}},
        lambda text: {"prompt_cache_key": text},
    ],
)
def test_responses_take_and_keep_every_text(change: Any, served: InProcess) -> None:
    with served.http() as http:
        for text in WEIRD.values():
            for stream in (False, True):
                body = {
                    "model": served.services.catalog.base.name,
                    "input": "Hi",
                    "max_output_tokens": 2,
                    "stream": stream,
                }
                answer = http.post(NAME[1], content=json.dumps({**body, **change(text)}))
                check(answer)
                if answer.status_code == 200 and not stream:
                    kept = http.get(f"{NAME[1]}/{answer.json()['id']}")
                    assert kept.json() == answer.json()
                    assert http.get(f"{NAME[1]}/{answer.json()['id']}/input_items").status_code == 200


@pytest.mark.parametrize(("path", "field"), [(NAME[2], "prompt"), (NAME[3], "input")])
def test_the_other_endpoints_take_every_text(path: str, field: str, served: InProcess) -> None:
    with served.http() as http:
        for text in WEIRD.values():
            for value in (text, [text, "x"]):
                model = served.services.catalog.base.name
                check(http.post(path, content=json.dumps({"model": model, field: value, "max_tokens": 2})))


@pytest.mark.parametrize("encoded", [b'"a\xed\xa0\xbdb"', b'"a\\ud83db"', b'"a\\uD83Db"', b'"a\\u0000b"'])
def test_halves_and_nul_become_a_replacement_character(encoded: bytes, served: InProcess) -> None:
    model = json.dumps(served.services.catalog.base.name).encode()
    with served.http() as http:
        answer = http.post(
            NAME[0], content=b'{"model":%s,"messages":[{"role":"user","content":%s}]}' % (model, encoded)
        )
    assert answer.status_code == 200
    assert "user\na\ufffdb<|im_end|>" in served.engine.tokenizer.decode(served.engine.asked[-1].prompt)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"\ud83d\ude00", "😀"),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
        (r"\\ud83d", r"\ud83d"),
        (r"\\\ud83d", "\\\ufffd"),
        (r"\\u0000", r"\u0000"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        ("\u2028", "\u2028"),
    ],
)
def test_nothing_else_is_touched(written: str, read: str) -> None:
    from server.http.entry.bodies import clean

    assert json.loads(clean(f'"{written}"'.encode())) == read


def test_an_aliass_user_is_hashed_whatever_it_is(served: InProcess, make_adapter: Any, smollm2_base: Any) -> None:
    with served.http() as http:
        assert served.register("ft:text:v1", make_adapter(smollm2_base)).status_code == 200
        made = http.put("/admin/adapters/aliases/ft:text", json={"weights": {"ft:text:v1": 1}})
        assert made.status_code == 200, made.text
        for text in WEIRD.values():
            body = {**chat(served, text, "user"), "model": "ft:text"}
            answer = http.post(NAME[0], content=json.dumps(body))
            assert (answer.status_code, answer.json()["model"]) == (200, "ft:text:v1")


@pytest.mark.parametrize(
    "header", ["x-request-id", "openai-organization", "openai-project", "user-agent", "cookie", "x-stainless-os"]
)
def test_headers_may_hold_anything(header: str, served: InProcess) -> None:
    with served.http() as http:
        for value in (b"", b"\xff\xfe", "ünï".encode(), b"a" * 8000, b"a\tb"):
            assert http.get("/v1/models", headers=[(header.encode(), value)]).status_code == 200
        for value in (b"Bearer \xff\xfe", "Bearer schlüssel".encode(), b"Basic abc", b"Bearer", b"bearer"):
            assert http.get("/v1/models", headers=[(b"authorization", value)]).status_code == 401
        for text in (b"%00", b"%ff", b"%ED%A0%BD", b"%E2%80%A8"):
            for path in (b"files", b"models", b"responses", b"batches", b"fine_tuning/jobs", b"uploads"):
                answer = http.get(f"/v1/{path.decode()}/{text.decode()}")
                assert answer.status_code in (404, 405), answer.text
            assert http.get(f"/v1/files?after={text.decode()}&purpose={text.decode()}").status_code == 400


def test_a_batch_takes_every_text(served: InProcess) -> None:
    import time

    lines = [
        {
            "custom_id": f"{number} {text[:50]}",
            "method": "POST",
            "url": NAME[0],
            "body": chat(served, text[:500], "content"),
        }
        for number, text in enumerate(WEIRD.values())
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    with served.http() as http:
        stored = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("b.jsonl", content)}).json()
        batch = http.post(
            "/v1/batches", json={"input_file_id": stored["id"], "endpoint": NAME[0], "completion_window": "24h"}
        ).json()
        until = time.monotonic() + 30
        while batch["status"] not in ("completed", "failed") and time.monotonic() < until:
            time.sleep(0.05)
            batch = http.get(f"/v1/batches/{batch['id']}").json()
        assert (batch["status"], batch["request_counts"]["total"]) == ("completed", len(lines)), batch
        assert batch["request_counts"]["completed"] == len(lines)
