"""Sends a server the requests that OpenAI's schema allows, and checks how it answers."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from server.inference.engine import Sampling
from server.openai.differences import ENDPOINTS, Narrower, Refused, Table, Taken, values
from tests.contract.walk import PUBLISHED, TEXTS, Walk, above, under

LOOKUP = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object", "properties": {}}}}
NAMED = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}, "strict": False}
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "embeddings": "/v1/embeddings",
    "uploads": "/v1/uploads",
    "batches": "/v1/batches",
    "jobs": "/v1/fine_tuning/jobs",
    "graders_run": "/v1/fine_tuning/alpha/graders/run",
    "graders_validate": "/v1/fine_tuning/alpha/graders/validate",
}
METRICS = ("fuzzy_match", "bleu", "gleu", "meteor", *(f"rouge_{n}" for n in (1, 2, 3, 4, 5, "l")), "cosine")
GRADER = {
    "evaluation_metric": METRICS,
    "graders.evaluation_metric": METRICS,
    "graders.name": ("x",),
    "calculate_output": ("x",),
    "source": ("def grade(sample, item):\n    return 1.0",),
    "graders.source": ("def grade(sample, item):\n    return 1.0",),
    "graders.range": ([0, 1],),
    "graders.labels": (["x", "y"],),
    "graders.passing_labels": (["x"],),
    "range": ([0, 1],),
}
PREFERRED = {"grader": GRADER, "method.reinforcement.grader": GRADER}
# Values where prose demands more than the schema: names that match a pattern, valid formulas and programs.
NAMES = ("lookup", "a-Z_9" + "x" * 59)
FIXED: dict[str, tuple[Any, ...]] = {
    "tools[].function.name": NAMES,
    "tools[].name": NAMES,
    "response_format.json_schema.name": NAMES,
    "text.format.name": NAMES,
    "tool_choice.function.name": ("lookup",),
    "tool_choice.name": ("lookup",),
    "tool_choice.allowed_tools.tools[]": ({"type": "function", "function": {"name": "lookup"}},),
    "tool_choice.tools[]": ({"type": "function", "name": "lookup"},),
    "dimensions": (384, 1),
    "seed": (0, 2**31 - 1, 2**63 - 1, -(2**63), None),
    "stop": ("x", ["x"] * 4, TEXTS[1], None),
    **{f"{place}.{name}": values for place, fields in PREFERRED.items() for name, values in fields.items()},
}
SHOWN = ("responses", "jobs", "batches", "uploads", "graders_validate")  # their answers repeat the request
TEXT = ("chat", "completions", "responses")
BESIDE: dict[str, dict[str, dict[str, Any]]] = {  # other fields that a field needs, by OpenAI's rules
    "chat": {
        "top_logprobs": {"logprobs": True},
        "stream_options": {"stream": True},
        "tool_choice": {"tools": [LOOKUP]},
        "parallel_tool_calls": {"tools": [LOOKUP]},
    },
    "completions": {"stream_options": {"stream": True}},
    "responses": {"stream_options": {"stream": True}, "tool_choice": {"tools": [NAMED]}},
}


@dataclass(frozen=True)
class Sent:
    """A request and its answer.

    Attributes:
        place: where the request differs from the smallest one.
        param: the place that the error names, or None.
    """

    place: str
    body: dict[str, Any]
    status: int
    answer: Any

    @property
    def param(self) -> str | None:
        """The error's `param`, as a place."""
        param = self.answer["error"]["param"] if self.status >= 400 else None
        return None if param is None else as_place(param)

    @property
    def message(self) -> str:
        """The error's message."""
        return self.answer["error"]["message"]


def as_place(param: str) -> str:
    """A place without indices: `tools[].strict` for `tools.2.strict`."""
    return re.sub(r"\.\[?\d+\]?(?=\.|$)", "[]", param)


def requests(endpoint: str, fixed: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each valid request of the walk, completed by OpenAI's rules, with the place where it differs."""
    walk = Walk({**FIXED, **fixed})
    needed = {"model": fixed["model"][0], "input": "x"} if endpoint == "responses" else {}
    for place, body in walk.values(PUBLISHED["bodies"][endpoint]):
        whole: dict[str, Any] = {**needed, **body}
        for field, beside in BESIDE.get(endpoint, {}).items():
            if field in body:
                whole = {**beside, **whole}
        if endpoint == "chat":
            whole["messages"] = conversation(whole["messages"])
        if endpoint == "jobs" and "method" in body:
            whole["method"] = method(body["method"])
            whole.setdefault("validation_file", fixed["validation_file"][0])  # reinforcement needs one
        if isinstance(whole.get("input"), list) and endpoint == "responses":
            whole["input"] = with_calls(whole["input"])
        yield place, whole


def method(given: dict[str, Any]) -> dict[str, Any]:
    """A job's method with the type of its configuration; reinforcement gets a grader."""
    kind = next((name for name in given if name != "type"), given["type"])
    if kind == "reinforcement":
        grader = {"type": "string_check", "name": "x", "input": "x", "reference": "x", "operation": "eq"}
        return {"type": kind, kind: {"grader": grader, **given.get(kind, {})}}
    return {**given, "type": kind}


def conversation(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages completed: before each tool result a call, after each call a result."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "tool":
            call = {"id": message["tool_call_id"], "type": "function", "function": {"name": "f", "arguments": "{}"}}
            turns.append({"role": "assistant", "tool_calls": [call]})
        turns.append(message)
        for call in message.get("tool_calls") or ():
            turns.append({"role": "tool", "tool_call_id": call["id"], "content": "x"})
    return turns


def with_calls(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items of `/v1/responses` completed: before each output a call, after each call an output."""
    whole: list[dict[str, Any]] = []
    for item in items:
        kind = item.get("type")
        if kind == "function_call_output" and "call_id" in item:
            whole.append({"type": "function_call", "call_id": item["call_id"], "name": "f", "arguments": "{}"})
        whole.append(item)
        if kind == "function_call" and "call_id" in item:
            whole.append({"type": "function_call_output", "call_id": item["call_id"], "output": "x"})
    return whole


def answered(http: httpx.Client, endpoint: str, place: str, body: dict[str, Any]) -> Sent:
    """Send a request."""
    answer = http.post(PATHS[endpoint], json=body)
    streamed = answer.headers["content-type"].startswith("text/event-stream")
    return Sent(place, body, answer.status_code, answer.text if streamed else answer.json())


def reached(body: Mapping[str, Any], sampling: Sampling) -> Iterator[str]:
    """Fields of a text request that did not reach the engine as they were sent."""
    limits = [body[name] for name in ("max_tokens", "max_completion_tokens", "max_output_tokens") if body.get(name)]
    stop = body.get("stop")
    asked = {
        **{name: body.get(name) for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")},
        "n": body.get("n"),
        "max_tokens": limits[0] if limits else None,
        "stop": (stop,) if isinstance(stop, str) else tuple(stop) if stop else None,
        "logit_bias": {int(token): bias for token, bias in (body.get("logit_bias") or {}).items()},
        "top_logprobs": body.get("top_logprobs") or None,
    }
    for name, value in asked.items():
        if value not in (None, {}) and getattr(sampling, name) != value:
            yield f"{name}: {value!r} became {getattr(sampling, name)!r}"


def shown(sent: Any, answer: Any, place: str = "") -> Iterator[str]:
    """Places where an object shows other values than were sent; null means absent."""
    if isinstance(sent, dict) and isinstance(answer, dict):
        for name in sent.keys() & answer.keys():
            yield from shown(sent[name], answer[name], under(place, name))
    elif isinstance(sent, list) and isinstance(answer, list) and len(sent) == len(answer):
        for number, (one, other) in enumerate(zip(sent, answer, strict=True)):
            yield from shown(one, other, f"{place}.{number}")
    elif sent not in (None, {}, []) and sent != answer and text(sent) != answer:
        yield f"{place}: {str(sent)[:80]!r} became {str(answer)[:80]!r}"


def text(content: Any) -> Any:
    """The text of a content that was sent in parts, which is shown as one text."""
    parts = content if isinstance(content, list) else [content]
    return "".join(str(part.get("text")) if isinstance(part, dict) else str(part) for part in parts)


def faults(
    endpoint: str,
    http: httpx.Client,
    fixed: Mapping[str, tuple[Any, ...]],
    sampling: Callable[[], Sampling] | None = None,
) -> list[str]:
    """Send each valid request; return those neither answered as asked nor refused by the table of differences.

    Args:
        sampling: returns the engine's last sampling parameters; None: they are not known.
    """
    table = ENDPOINTS[endpoint][1]
    taken: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    found: list[str] = []
    settled: set[tuple[str, ...]] = set()
    for place, body in requests(endpoint, fixed):
        key = (place, *kinds(body))
        if key in settled:  # its first value was refused because of other fields
            continue
        sent = answered(http, endpoint, place, body)
        within = sorted((path for path in table if present(body, path)), key=len, reverse=True)
        if sent.status < 400:
            taken.update(within)
            lost = shown(body, sent.answer) if endpoint in SHOWN and isinstance(sent.answer, dict) else ()
            if endpoint in TEXT and sampling is not None:
                lost = [*lost, *reached(body, sampling())]
            found += [f"{where} in {str(body)[:300]}" for where in lost if not without_effect(table, where)]
            continue
        why = next((path for path in within if explains(path, table[path], sent)), None)
        if why is None or sent.status != 400:
            found.append(f"{place}: {sent.status} {sent.param} {sent.message[:150]} {str(body)[:300]}")
        else:
            refused[why] += 1
            if why != place:
                settled.add(key)
    for path, entry in table.items():
        if isinstance(entry, Taken):
            found += [f"{path} is refused, and stands as `Taken`"] * bool(refused[path])
        elif taken[path] + refused[path]:
            found += [f"{path} is refused nowhere: take it out of the table"] * (not refused[path])
            found += [f"{path} is never taken"] * (isinstance(entry, Narrower) and not taken[path])
    return found


def without_effect(table: Table, where: str) -> bool:
    """Whether the table says that a field or a parent is taken without effect, or refused."""
    place = as_place(where.partition(":")[0])
    return any(isinstance(table.get(one), Taken | Refused) for one in above(place))


def kinds(body: Any) -> list[str]:
    """The types of a body's parts, which identify the branches of its unions."""
    if isinstance(body, list):
        return [kind for one in body for kind in kinds(one)]
    if not isinstance(body, dict):
        return []
    own = [str(body[name]) for name in ("type", "role") if name in body]
    return own + [kind for one in body.values() for kind in kinds(one)]


def present(body: Any, path: str) -> bool:
    """Whether a body has a value at a place."""
    return any(value is not None for _, value in values(body, path.split(".")))


def explains(path: str, entry: Refused | Taken | Narrower, sent: Sent) -> bool:
    """Whether an entry of the table explains a refusal: the error names the entry's place, or one beside it."""
    if sent.param is None or isinstance(entry, Taken):
        return False
    if isinstance(entry, Refused):
        return entry.why in sent.message and sent.param == path
    about = sent.param, path
    if any(one == other or one.startswith((f"{other}.", f"{other}[")) for one, other in (about, about[::-1])):
        return True
    parent, _, name = sent.param.rpartition(".")
    return name in ("type", "role") and path.startswith(f"{parent}.")  # a branch of a union that is not supported
