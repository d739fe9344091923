"""The turns of a row: OpenAI's messages and tools. Each field is used, refused, or listed in the report as unread."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.chat import template
from training.data.jsonl import load, quoted
from training.wire import FUNCTION_NAME

ROLES = ("system", "developer", "user", "assistant", "tool")
_MAY_BE_EMPTY = ("system", "developer", "tool")
_READ = {"role", "content", "name", "weight", "tool_calls", "tool_call_id", "refusal", "function_call", "audio"}
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
# Fields that are read of a part, a call and a tool. The SDK's `parsed_arguments` repeat `arguments`.
_PART = {"type", *TEXT_PARTS.values()}
_CALL, _CALLED = {"id", "type", "function", "index"}, {"name", "arguments", "parsed_arguments"}
_TOOL, _FUNCTION = {"type", "function"}, {"name": str, "description": str, "parameters": dict, "strict": bool}
_KINDS = {str: "a text", dict: "an object", bool: "true or false"}
_SCHEMA_VALUES = ("default", "const", "enum", "examples")  # keys of JSON Schema in which null is a value
_SCHEMA_NAMES = ("properties", "patternProperties", "$defs", "definitions")  # objects with freely chosen keys


@dataclass(frozen=True)
class Message:
    """One turn.

    Attributes:
        trained: whether the turn counts in the loss.
        calls: OpenAI's `tool_calls`, in an assistant's turn.
        call_id: in a tool's turn, the call whose result it is.
        name: the speaker, for templates that show it.
    """

    role: str
    content: str
    trained: bool = False
    calls: tuple[dict[str, Any], ...] = ()
    call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The turn's text, calls included."""
        return template.written(self.content, self.calls)


def present(content: dict[str, Any]) -> dict[str, Any]:
    """The keys that have a value: null means absent, as everywhere in OpenAI's API."""
    return {key: value for key, value in content.items() if value is not None}


def unread(messages: Any) -> set[str]:
    """Keys of messages without effect: no template gets them, or they only matter in an assistant's turn."""
    turns = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    parts, calls = _objects(turns, "content"), _objects(turns, "tool_calls")
    found = {
        *_beside("messages[]", turns, _READ),
        *_beside("messages[].content[]", parts, _PART),
        *_beside("messages[].tool_calls[]", calls, _CALL),
        *_beside("messages[].tool_calls[].function", [call["function"] for call in calls], _CALLED),
    }
    if any(turn.get("weight") and turn.get("role") != "assistant" for turn in turns):
        found.add("messages[].weight of turns that are not the assistant's")
    return found


def unread_of_tools(row: Mapping[str, Any]) -> set[str]:
    """Keys of a row's tools without effect, since the server does not support them and no model will see them."""
    tools = _objects([row], "tools")
    functions = [tool["function"] for tool in tools]
    return {*_beside("tools[]", tools, _TOOL), *_beside("tools[].function", functions, _FUNCTION)}


def _objects(holders: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """The objects in the lists under `name`."""
    lists = [holder.get(name) for holder in holders]
    return [one for some in lists if isinstance(some, list) for one in some if isinstance(one, dict)]


def _beside(place: str, objects: Sequence[Mapping[str, Any]], known: Container[str]) -> set[str]:
    """The places of keys that have a value and are not among the known ones."""
    return {f"{place}.{key}" for one in objects for key, value in one.items() if key not in known and value}


def read(row: dict[str, Any], name: str, place: str = "") -> tuple[Message, ...]:
    """The turns under `name` in a row without nulls.

    Args:
        place: path of the row within the line, for messages of errors.

    Raises:
        ValueError: says what is wrong and what was expected.
    """
    turns = row.get(name)
    if not isinstance(turns, list):
        raise ValueError(f'expected an object with a "{place}{name}" list')
    if not turns:
        raise ValueError(f'"{place}{name}" is empty')
    return tuple(_message(turn, f"{place}{name}[{index}]") for index, turn in enumerate(turns))


def _message(given: Any, where: str) -> Message:
    if not isinstance(given, dict):
        raise ValueError(f"{where} is no object")
    message = present(given)
    role = message.get("role")
    if role not in ROLES:
        raise ValueError(f"{where}.role is {quoted(role)}; expected one of {', '.join(ROLES)}")
    if message.get("function_call"):
        raise ValueError(f'{where}.function_call is what "tool_calls" was until 2023; write it as those')
    if message.get("audio"):
        raise ValueError(f"{where}.audio cannot be trained on: the model reads text only; leave the row out")
    calls = _calls(message.get("tool_calls", []), role, where)
    content = _content(message, bool(calls), where)
    if not calls and role not in _MAY_BE_EMPTY and not content.strip():
        raise ValueError(f"{where}.content is empty or no text")
    call_id = message.get("tool_call_id")
    if role == "tool" and not isinstance(call_id, str):
        raise ValueError(f"{where}.tool_call_id is {quoted(call_id)}; expected the id of the call it answers")
    if role != "tool" and call_id is not None:
        raise ValueError(f"{where}.tool_call_id stands at a turn of the role {role!r}; only the role 'tool' has one")
    name = message.get("name")
    if name is not None and not isinstance(name, str):
        raise ValueError(f"{where}.name is {quoted(name)}; expected a text")
    return Message(role, content, _trained(message, role, where), calls, call_id, name)


def _content(message: dict[str, Any], calls: bool, where: str) -> str:
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}.content[{index}]") for index, part in enumerate(content))
    if refusal:
        if content or not isinstance(refusal, str) or message["role"] != "assistant":
            raise ValueError(f"{where}.refusal stands beside a content, or is no text of the assistant; keep one")
        content = refusal
    if content is None and calls:
        return ""
    if not isinstance(content, str):
        raise ValueError(f"{where}.content is empty or no text")
    if calls and content.strip() == "null":
        raise ValueError(f'{where}.content is the word "null" beside tool_calls and would be learnt; write null')
    return content


def _part(part: Any, where: str) -> str:
    kind = part.get("type") or "text" if isinstance(part, dict) else None
    text = part.get(TEXT_PARTS.get(kind, "")) if isinstance(kind, str) else None
    if not isinstance(text, str):
        raise ValueError(f"{where} is of type {quoted(kind)}; the model reads text only, leave the row out")
    return text


def _trained(message: dict[str, Any], role: str, where: str) -> bool:
    weight = message.get("weight", 1)
    if weight not in (0, 1):
        raise ValueError(f"{where}.weight is {quoted(weight)}; expected 0 or 1")
    return role == "assistant" and weight == 1


def _calls(calls: Any, role: str, where: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(calls, list):
        raise ValueError(f"{where}.tool_calls is {quoted(calls)}; expected a list")
    if calls and role != "assistant":
        raise ValueError(f"{where} is of role {role!r} and calls tools; only the assistant does")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str) or not call["id"]:
            raise ValueError(f'{where}.tool_calls: expected {{"id", "type": "function", "function": {{...}}}} for each')
        if not isinstance(function.get("name"), str) or not isinstance(function.get("arguments"), str):
            raise ValueError(f"{where}.tool_calls: a function has no name, or its arguments are no JSON text")
        try:
            load(function["arguments"] or "{}", halves=True)
        except ValueError as error:
            why = str(error).removeprefix("not JSON: ")
            raise ValueError(
                f"{where}.tool_calls: the arguments of the call {quoted(function['name'])} are no JSON: {why}"
            ) from None
    return tuple(calls)


def read_tools(row: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """OpenAI's `tools` of a row without nulls.

    Raises:
        ValueError: says what is wrong.
    """
    if row.get("functions"):
        raise ValueError('"functions" is what "tools" was until 2023; write them as "tools"')
    if row.get("function_call"):
        raise ValueError('"function_call" has no effect in training; leave it out')
    tools = row.get("tools", [])
    if not isinstance(tools, list):
        raise ValueError(f"tools is {quoted(tools)}; expected a list")
    offered = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    names = [tool["function"]["name"] for tool in offered]
    if len(set(names)) < len(names):
        raise ValueError("two tools have the same name")
    parallel = row.get("parallel_tool_calls", True)
    if not isinstance(parallel, bool):
        raise ValueError(f"parallel_tool_calls is {quoted(parallel)}; expected true or false")
    try:
        return tuple(_unpadded(tool) for tool in offered)
    except RecursionError:
        raise ValueError("tools are nested too deeply") from None


def _tool(given: Any, where: str) -> dict[str, Any]:
    """A tool with its keys in the order that the server uses, since templates write them in that order."""
    tool = present(given) if isinstance(given, dict) else {}
    if tool.get("type", "function") != "function" or not isinstance(tool.get("function"), dict):
        raise ValueError(f'{where}: expected {{"type": "function", "function": {{"name": ...}}}}')
    function = present(tool["function"])
    for key, kind in _FUNCTION.items():
        if key in function and not isinstance(function[key], kind):
            raise ValueError(f"{where}.function.{key} is {quoted(function[key])}; expected {_KINDS[kind]}")
    if not re.match(FUNCTION_NAME, function.get("name", "")):
        raise ValueError(
            f"{where}.function.name is {quoted(function.get('name'))}; expected 1 to 64 letters, digits, _ and -"
        )
    return {"type": "function", "function": {key: function[key] for key in _FUNCTION if key in function}}


def check_calls(messages: Sequence[Message], tools: Sequence[dict[str, Any]], parallel: bool) -> None:
    """Check that every call names a tool of the row and is followed by its result, as OpenAI does.

    Raises:
        ValueError: names the turn.
    """
    known = {tool["function"]["name"] for tool in tools}
    waiting: set[str] = set()
    for index, message in enumerate(messages):
        for call in message.calls:
            if call["function"]["name"] not in known:
                raise ValueError(
                    f"messages[{index}] calls {quoted(call['function']['name'])}, which is not among the row's "
                    '"tools"; the model would learn to call what it is not offered. Add the tool'
                )
        if len(message.calls) > 1 and not parallel:
            raise ValueError(f"messages[{index}] has {len(message.calls)} calls, but parallel_tool_calls is false")
        if message.role == "tool":
            if message.call_id not in waiting:
                raise ValueError(f"messages[{index}] answers the call {quoted(message.call_id)}, which nobody made")
            waiting.remove(message.call_id)
        elif waiting:
            raise ValueError(f"messages[{index}] comes before the result of the call {quoted(min(waiting))}")
        for call in message.calls:
            if call["id"] in waiting:
                raise ValueError(f"messages[{index}] has two calls of the id {quoted(call['id'])}; give each its own")
            waiting.add(call["id"])


def _unpadded(schema: Any, key: str = "") -> Any:
    """A tool without the nulls with which `datasets` pads nested objects; nulls with a meaning in JSON Schema stay."""
    if isinstance(schema, list):
        return [_unpadded(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    if key in _SCHEMA_NAMES:
        return {name: _unpadded(value) for name, value in schema.items() if value is not None}
    return {
        name: value if name in _SCHEMA_VALUES else _unpadded(value, name)
        for name, value in schema.items()
        if value is not None or name in ("default", "const")
    }
