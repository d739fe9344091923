"""Requests made to stall a server: values that take long to read, in each field of each route."""

import gzip
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

MODEL = "SmolLM2-135M-Instruct"
ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
GRADER = {"type": "string_check", "name": "g", "input": "{{sample.output_text}}", "reference": "a", "operation": "eq"}
SIMILARITY = {"type": "text_similarity", "name": "g", "input": "a", "reference": "b", "evaluation_metric": "rouge_l"}
PYTHON = {"type": "python", "name": "g", "source": "def grade(sample, item): return 1"}
MULTI = {"type": "multi", "name": "g", "graders": {"a": GRADER}, "calculate_output": "a"}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "properties": {}}}}


def _repeated(piece: str, opening: str = "", closing: str = "", joint: str = "") -> Callable[[int], str]:
    """A function that makes JSON of about `size` bytes by repeating a piece."""

    def made(size: int) -> str:
        count = max((size - len(opening) - len(closing)) // (len(piece) + len(joint)), 1)
        return opening + joint.join([piece] * count) + closing

    return made


def _keys(size: int) -> str:
    return "{" + ",".join(f'"k{number:07}":0' for number in range(max(size // 13, 1))) + "}"


SHAPES: dict[str, Callable[[int], str]] = {
    "text": _repeated("a", '"', '"'),
    "words": _repeated("lorem ipsum ", '"', '"'),
    "spaces": _repeated(" ", '"{{', '"'),
    "braces": _repeated("{{a}}", '"', '"'),
    "emoji": _repeated("😀", '"', '"'),
    "letters as escapes": _repeated("\\u00e9", '"', '"'),
    "halves of characters": _repeated("\\ud83d", '"', '"'),
    "backslashes": _repeated("\\\\", '"', '"'),
    "quotes": _repeated('\\"', '"', '"'),
    "control tokens": _repeated("<|im_end|>", '"', '"'),
    "an address": _repeated("a-", '"@ ', '"'),
    "digits of a text": _repeated("4111 ", '"', '"'),
    "a regular expression": _repeated("(a*)*", '"', 'b"'),
    "a formula": _repeated("9**9**", '"', '9"'),
    "brackets in a text": _repeated("(", '"', '"'),
    "numbers": _repeated("1", "[", "]", ","),
    "floats": _repeated("0.1e-7", "[", "]", ","),
    "lists": _repeated("[]", "[", "]", ","),
    "objects": _repeated("{}", "[", "]", ","),
    "texts": _repeated('"a"', "[", "]", ","),
    "messages": _repeated('{"role":"user","content":"a"}', "[", "]", ","),
    "parts": _repeated('{"type":"text","text":"a"}', "[", "]", ","),
    "tools": _repeated(json.dumps(FUNCTION), "[", "]", ","),
    "keys": _keys,
    "one key": _repeated('"a":1', "{", "}", ","),
    "a number": _repeated("9"),
    "a fraction": _repeated("3", "0."),
    "a tower": lambda size: "[" * (size // 2) + "]" * (size // 2),
    "a schema's tower": lambda size: '{"items":' * (size // 10) + "{}" + "}" * (size // 10),
    "alternatives": _repeated('{"type":"string"}', '{"anyOf":[', "]}", ","),
    "no end": _repeated('{"a":['),
}

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
COMPLETION: dict[str, Any] = {"model": MODEL, "prompt": "Hi", "max_tokens": 1}
RESPONSE: dict[str, Any] = {"model": MODEL, "input": "Hi", "max_output_tokens": 16, "store": False}
JOB: dict[str, Any] = {"model": MODEL, "training_file": "file-none"}
# Each route with a body, and the fields to test; "" is the body itself.
ROUTES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "POST /v1/chat/completions": (
        {**CHAT, "tools": [FUNCTION], "response_format": SCHEMA, "structured_outputs": {"regex": "a"}},
        (
            "",
            "messages",
            "messages.0.content",
            "messages.0.name",
            "messages.0.role",
            "messages.0.tool_calls",
            "model",
            "tools",
            "tools.0.function.name",
            "tools.0.function.parameters",
            "tool_choice",
            "stop",
            "logit_bias",
            "response_format.json_schema.schema",
            "structured_outputs.regex",
            "structured_outputs.choice",
            "structured_outputs.grammar",
            "chat_template_kwargs",
            "metadata",
            "user",
            "temperature",
            "seed",
            "nobody_knows",
        ),
    ),
    "POST /v1/completions": (COMPLETION, ("", "prompt", "stop", "logit_bias", "suffix", "model", "stop_token_ids")),
    "POST /v1/responses": (
        RESPONSE,
        ("", "input", "instructions", "tools", "text", "metadata", "previous_response_id", "include"),
    ),
    "POST /v1/embeddings": ({"model": "all-MiniLM-L6-v2", "input": "a"}, ("", "input", "model", "dimensions")),
    "POST /v1/moderations": ({"input": "a"}, ("input",)),
    "POST /v1/batches": (
        {"input_file_id": "file-none", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
        ("", "input_file_id", "metadata", "endpoint"),
    ),
    "POST /v1/uploads": (
        {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 1, "mime_type": "text/jsonl"},
        ("", "filename", "bytes", "purpose"),
    ),
    "POST /v1/uploads/upload_none/complete": ({"part_ids": ["a"]}, ("part_ids", "md5")),
    "POST /v1/fine_tuning/jobs": (
        {**JOB, "method": {"type": "reinforcement", "reinforcement": {"grader": GRADER, "hyperparameters": {}}}},
        (
            "",
            "model",
            "training_file",
            "suffix",
            "metadata",
            "integrations",
            "hyperparameters",
            "method",
            "method.reinforcement.grader",
            "method.reinforcement.grader.input",
            "method.reinforcement.hyperparameters",
        ),
    ),
    "POST /v1/fine_tuning/alpha/graders/validate": (
        {"grader": GRADER},
        ("", "grader", "grader.input", "grader.reference", "grader.name", "grader.operation"),
    ),
    "POST /v1/fine_tuning/alpha/graders/run": (
        {"grader": SIMILARITY, "model_sample": "a", "item": {"a": "b"}},
        ("", "grader.input", "grader.reference", "model_sample", "item", "item.a"),
    ),
    "POST /v1/fine_tuning/alpha/graders/run#python": (
        {"grader": PYTHON, "model_sample": "a", "item": {"a": "b"}},
        ("grader.source", "model_sample", "item"),
    ),
    "POST /v1/fine_tuning/alpha/graders/validate#multi": (
        {"grader": MULTI},
        ("grader.calculate_output", "grader.graders"),
    ),
    "POST /v1/fine_tuning/checkpoints/ft:a/permissions": ({"project_ids": ["a"]}, ("", "project_ids")),
    "POST /admin/adapters": ({"name": "ft:a", "path": "/nowhere"}, ("", "name", "path")),
    "PUT /admin/adapters/aliases/a": ({"model": "ft:a"}, ("", "model")),
    "POST /admin/keys": ({"name": "a"}, ("", "name")),
}
GET_LISTS = ("/v1/files?purpose=", "/v1/fine_tuning/jobs?metadata[a]=", "/v1/batches?after=", "/v1/models/", "/")


@dataclass(frozen=True)
class Hostile:
    """A request; `name` says which field holds what."""

    name: str
    method: str
    path: str
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict)


def bodies(count: int, limit: int, seed: int = 0) -> Iterator[Hostile]:
    """`count` requests: first those that a review found, then each field of each route in turn, with changing values.

    Args:
        limit: largest body, in bytes.
    """
    chance = random.Random(seed)
    fields = [(route, field) for route, (_, names) in ROUTES.items() for field in names]
    shapes = list(SHAPES)
    chance.shuffle(fields)
    chance.shuffle(shapes)
    others = list(_others(limit))
    found = list(_found())
    yield from found
    for number in range(count - len(found)):
        if number % 8 == 7:
            yield others[number // 8 % len(others)]
            continue
        route, name = fields[number % len(fields)]
        shape = shapes[number % len(shapes)]
        size = limit - 4096 if chance.random() < 0.5 else chance.randint(1, limit // 2)
        method, _, path = route.partition("#")[0].partition(" ")
        body = _with(ROUTES[route][0], name, SHAPES[shape](size))
        yield Hostile(f"{route} {name or 'body'} = {shape}, {len(body)} bytes", method, path, body.encode())


def _with(body: dict[str, Any], place: str, value: str) -> str:
    """The body as JSON, with the JSON `value` at the place."""
    if not place:
        return value
    mark = "\0here\0"
    changed: Any = json.loads(json.dumps(body))
    *above, last = place.split(".")
    inner = changed
    for step in above:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    inner[last] = mark
    return json.dumps(changed).replace(json.dumps(mark), value)


def _found() -> Iterator[Hostile]:
    """The requests that stalled the server in a review."""
    words = " ".join(f"w{number}" for number in range(6_000))
    similarity = {**SIMILARITY, "input": "{{sample.output_text}}", "reference": "{{item.a}}"}
    for name, route, body in (
        ("2,000 spaces", "graders/validate", {"grader": {**GRADER, "input": "{{" + " " * 2_000}}),
        ("a power", "graders/validate", {"grader": {**MULTI, "calculate_output": "400000**400000"}}),
        ("a width", "graders/validate", {"grader": {**MULTI, "calculate_output": 'f"{1:>80000000}"'}}),
        ("6,000 words", "graders/run", {"grader": similarity, "model_sample": words, "item": {"a": words}}),
    ):
        yield Hostile(name, "POST", f"/v1/fine_tuning/alpha/{route}", json.dumps(body).encode())
    chain = {f"a{number}": {"$ref": f"#/$defs/a{number + 1}"} for number in range(4_000)} | {"a4000": {}}
    referring = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$defs": chain}}}
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for name, more in (
        ("a chain of references", {"response_format": referring}),
        ("40,000 calls", {"messages": [{"role": "assistant", "tool_calls": [call] * 40}] * 1_000}),
        ("60,000 labels", {"metadata": dict.fromkeys(map(str, range(60_000)), "a")}),
        ("a million messages", {"messages": [1] * 1_000_000}),
        ("9,000 turns", {"messages": [{"role": "user", "content": "Hi"}] * 9_000}),
        ("100,000 words", {"messages": [{"role": "user", "content": "word " * 100_000}]}),
        ("3 million characters", {"messages": [{"role": "user", "content": "a" * 3_000_000}]}),
        ("2,000 biases", {"logit_bias": dict.fromkeys(range(2_000), 1)}),
        ("half a character", {"messages": [{"role": "user", "content": "\ud83d"}]}),
    ):
        yield Hostile(name, "POST", "/v1/chat/completions", json.dumps({**CHAT, **more}).encode())


def _others(limit: int) -> Iterator[Hostile]:
    """Requests whose hostile part is no field of a JSON body."""
    chat = "/v1/chat/completions"
    yield Hostile("a gzip bomb", "POST", chat, gzip.compress(b" " * 50 * limit), {"content-encoding": "gzip"})
    yield Hostile("UTF-16", "POST", chat, json.dumps(CHAT).ljust(limit // 2 - 8).encode("utf-16"))
    yield Hostile("no UTF-8", "POST", chat, b"\xff" * (limit - 8))
    yield Hostile("punycode", "POST", chat, b"a-" * (limit // 2 - 8), {"content-type": "text/plain; charset=punycode"})
    yield Hostile("too large", "POST", chat, b" " * (limit + 1))
    for name, data in (
        ("a form of many fields", b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 10_000),
        ("a form without an end", b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'),
        ("a form of line ends", b"--b\r\n" + b"\r\n" * 1_000_000),
        ("a form with a long name", b'--b\r\nContent-Disposition: form-data; name="' + b"a" * 1_000_000 + b'"\r\n\r\n'),
    ):
        yield Hostile(name, "POST", "/v1/files", data, {"content-type": "multipart/form-data; boundary=b"})
    rows = (json.dumps(ROW) + "\n").encode() * (limit // 100)
    head = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--b\r\nContent-Disposition: '
    file = head + b'form-data; name="file"; filename="a.jsonl"\r\n\r\n' + rows + b"\r\n--b--\r\n"
    yield Hostile("a file", "POST", "/v1/files", file, {"content-type": "multipart/form-data; boundary=b"})
    for path in GET_LISTS:
        yield Hostile(f"GET {path}€€€", "GET", path + "%E2%82%AC" * 6_000, b"")
        yield Hostile(f"GET {path}aaa", "GET", path + "a" * 60_000, b"")
