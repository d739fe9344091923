"""Bodies made to stall a server, and what its other clients feel of them: the longest time without a word."""

import asyncio
import contextlib
import gzip
import http.client
import json
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from bench.servers import free_port
from server.settings import Settings
from tests.processes import started

STREAMS = 16
STREAM_TOKENS = 7_000
PAUSE_SECONDS = 0.05  # between tokens
PERCEPTIBLE_SECONDS = 0.25
TRIES = 3
START_SECONDS = 60.0
HEALTH_SECONDS = 0.02
ANSWER_SECONDS = 60.0
MODEL = "SmolLM2-135M-Instruct"
ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
GRADER = {"type": "string_check", "name": "g", "input": "{{sample.output_text}}", "reference": "a", "operation": "eq"}
SIMILARITY = {"type": "text_similarity", "name": "g", "input": "a", "reference": "b", "evaluation_metric": "rouge_l"}
PYTHON = {"type": "python", "name": "g", "source": "def grade(sample, item): return 1"}
MULTI = {"type": "multi", "name": "g", "graders": {"a": GRADER}, "calculate_output": "a"}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "properties": {}}}}


def _repeated(piece: str, opening: str = "", closing: str = "", joint: str = "") -> Callable[[int], str]:
    """JSON of about so many bytes, out of a repeated piece."""

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
# Each route with a body, and the fields of it that are put to the test; "" is the body itself.
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
    """A request; `name` says which of its fields holds what."""

    name: str
    method: str
    path: str
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict)


def bodies(count: int, limit: int, seed: int = 0) -> Iterator[Hostile]:
    """So many: what a review found, then each field of each route in turn, with the next shape each time.

    Args:
        limit: bytes of the largest body.
    """
    chance = random.Random(seed)
    fields = [(route, field) for route, (_, names) in ROUTES.items() for field in names]
    shapes = list(SHAPES)
    chance.shuffle(fields)
    chance.shuffle(shapes)
    others = list(_others(limit))
    yield from _found()
    for number in range(count - len(list(_found()))):
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
    """What stopped the server when it was reviewed."""
    words = " ".join(f"w{number}" for number in range(6_000))
    similarity = {**SIMILARITY, "input": "{{sample.output_text}}", "reference": "{{item.a}}"}
    for name, route, body in (
        ("2,000 spaces", "graders/validate", {"grader": {**GRADER, "input": "{{" + " " * 2_000}}),
        ("a power", "graders/validate", {"grader": {**MULTI, "calculate_output": "400000**400000"}}),
        ("a width", "graders/validate", {"grader": {**MULTI, "calculate_output": 'f"{1:>80000000}"'}}),
        ("6,000 words", "graders/run", {"grader": similarity, "model_sample": words, "item": {"a": words}}),
    ):
        yield Hostile(name, "POST", f"/v1/fine_tuning/alpha/{route}", json.dumps(body).encode())
    for name, more in (
        ("a million messages", {"messages": [1] * 1_000_000}),
        ("3 million characters", {"messages": [{"role": "user", "content": "a" * 3_000_000}]}),
        ("2,000 biases", {"logit_bias": dict.fromkeys(range(2_000), 1)}),
        ("half a character", {"messages": [{"role": "user", "content": "\ud83d"}]}),
    ):
        yield Hostile(name, "POST", "/v1/chat/completions", json.dumps({**CHAT, **more}).encode())


def _others(limit: int) -> Iterator[Hostile]:
    """What is no field of a JSON body."""
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


@dataclass(frozen=True, order=True)
class Silence:
    """The longest wait of a client while a body was answered."""

    seconds: float
    whose: str
    body: str
    status: int


def measure(model: Path, data: Path, count: int, seed: int = 0) -> list[Silence]:
    """What clients of a server on a scripted engine wait while so many bodies come in, the longest first.

    A wait of `PERCEPTIBLE_SECONDS` is measured again, and the shortest counts: the machine stalls too.
    """
    port = free_port()
    flags = ["--model", model, "--port", port, "--data-dir", data, "--no-auth", "--pause", PAUSE_SECONDS]
    silences: list[Silence] = []
    with started([sys.executable, "-m", "tests.scripted_server", *map(str, flags)]), Clients(port) as clients:
        for hostile in bodies(count, Settings(model=str(model)).max_body_bytes, seed):
            tries: list[Silence] = []
            while len(tries) < TRIES and (not tries or tries[-1].seconds >= PERCEPTIBLE_SECONDS):
                clients.longest()
                status = send(port, hostile)
                tries.append(Silence(*clients.longest(), hostile.name, status))
            silences.append(min(tries))
    return sorted(silences, reverse=True)


class Clients:
    """16 that read streams and one that asks for `/health`, in a loop of their own; `longest` is what they waited."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._last: dict[int, float] = {}
        self._longest = (0.0, "")
        self._started: Future[None] = Future()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)

    def __enter__(self) -> "Clients":
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self._port)):
                break
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.1)
        self._thread.start()
        self._started.result(ANSWER_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(ANSWER_SECONDS)

    def longest(self) -> tuple[float, str]:
        """The longest wait since this was last asked, in seconds, once each has heard again, and whose it was."""
        return asyncio.run_coroutine_threadsafe(self._settle(), self._loop).result(ANSWER_SECONDS)

    async def _settle(self) -> tuple[float, str]:
        asked = time.monotonic()
        while len(self._last) <= STREAMS or min(self._last.values()) <= asked:
            await asyncio.sleep(0.01)
        longest, self._longest = self._longest, (0.0, "")
        return longest

    def _heard(self, client: int) -> None:
        now = time.monotonic()
        if client in self._last:
            self._longest = max(self._longest, (now - self._last[client], self._name(client)))
        self._last[client] = now

    @staticmethod
    def _name(client: int) -> str:
        return "a stream" if client < STREAMS else "/health"

    async def _run(self) -> None:
        self._ended = asyncio.Event()
        tasks = [asyncio.create_task(self._stream(client)) for client in range(STREAMS)]
        tasks.append(asyncio.create_task(self._health(STREAMS)))
        while len(self._last) <= STREAMS:
            await asyncio.sleep(0.01)
            for task in tasks:
                if task.done():
                    task.result()
        self._longest = (0.0, "")
        self._started.set_result(None)
        await self._ended.wait()
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _stream(self, client: int) -> None:
        body = json.dumps({**CHAT, "max_tokens": STREAM_TOKENS, "stream": True}).encode()
        while True:
            self._last.pop(client, None)
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(_head("POST", "/v1/chat/completions", len(body)) + body)
            while b"data: [DONE]" not in (piece := await reader.readline()):
                assert piece, "the stream ended early"
                if piece.startswith(b"data: "):
                    assert not piece.startswith(b'data: {"error"'), piece
                    self._heard(client)
            writer.close()

    async def _health(self, client: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while True:
            self._last[client] = time.monotonic()
            writer.write(_head("GET", "/health", 0))
            answer = await reader.readuntil(b'{"status":"ok"}')
            assert answer.startswith(b"HTTP/1.1 200"), answer
            self._heard(client)
            await asyncio.sleep(HEALTH_SECONDS)


def _head(method: str, path: str, length: int) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n".encode()


def send(port: int, hostile: Hostile) -> int:
    """Send it; return the answer's status, 0 where the server closed the connection on what it will not read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(hostile.method, hostile.path, hostile.body, hostile.headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (ConnectionResetError, http.client.RemoteDisconnected):
        return 0
    finally:
        connection.close()
