"""A line of training data, in every form that is taken; a faulty one says what is wrong with it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adapters import template

ROLES = ("system", "developer", "user", "assistant", "tool")

Kind = Literal["supervised", "dpo", "reinforcement"]


@dataclass(frozen=True)
class Message:
    """One turn.

    Attributes:
        trained: whether the loss counts it.
        calls: OpenAI's `tool_calls`, of an assistant's turn.
        call_id: the call whose result it is, of a tool's turn.
    """

    role: str
    content: str
    trained: bool = False
    calls: tuple[dict[str, Any], ...] = ()
    call_id: str | None = None

    @property
    def text(self) -> str:
        """All that the turn says."""
        return template.written(self.content, self.calls)


@dataclass(frozen=True)
class Example:
    """A conversation to learn the assistant's turns of; `line` counts from 1, `tools` are OpenAI's."""

    messages: tuple[Message, ...]
    line: int
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def text(self) -> str:
        """All that stands in the row."""
        return _joined(self.messages)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The turns before the last trained answer."""
        return self.messages[: self._last]

    @property
    def answer(self) -> str:
        """The last trained answer."""
        return self.messages[self._last].text

    @property
    def _last(self) -> int:
        return max(index for index, message in enumerate(self.messages) if message.trained)


@dataclass(frozen=True)
class Pair:
    """A conversation and two answers to it, of which `answer` is preferred to `rejected`."""

    prompt: tuple[Message, ...]
    answer: str
    rejected: str
    line: int

    @property
    def text(self) -> str:
        """All that stands in the row."""
        return _joined(self.prompt, self.answer, self.rejected)


@dataclass(frozen=True)
class Task:
    """A conversation to answer, and the row's own fields, which its grader reads."""

    prompt: tuple[Message, ...]
    item: dict[str, Any]
    line: int

    @property
    def text(self) -> str:
        """All that a model may read of the row."""
        return _joined(self.prompt)

    @property
    def answer(self) -> str:
        """A task holds none."""
        return ""


Row = Example | Pair | Task


def parse(raw: bytes, line: int, kind: Kind) -> Row:
    """A line as a row.

    Raises:
        ValueError: says what is wrong with it and what was expected.
    """
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    return _PARSERS[kind](row, line)


def _joined(messages: tuple[Message, ...], *answers: str) -> str:
    return "\n".join([*(message.text for message in messages), *answers])


def _example(row: dict[str, Any], line: int) -> Example:
    """Chat as OpenAI defines it, or its older prompt/completion, or Alpaca's instruction/input/output."""
    if "messages" not in row and "completion" in row:
        row = {"messages": _turns(row, "prompt", row.get("prompt"), row["completion"])}
    elif "messages" not in row and "output" in row:
        extra = row.get("input") or ""
        if not isinstance(extra, str):
            raise ValueError("input is no text")
        instruction = row.get("instruction")
        user = f"{instruction}\n\n{extra}" if extra and isinstance(instruction, str) else instruction
        row = {"messages": _turns(row, "instruction", user, row["output"])}
    messages = _messages(row, "messages")
    if not any(message.role == "assistant" for message in messages):
        raise ValueError("no assistant turn; there is nothing to learn")
    if not any(message.trained for message in messages):
        raise ValueError("every assistant turn has weight 0; there is nothing to learn")
    _check_calls(messages)
    return Example(messages, line, _tools(row.get("tools") or []))


def _turns(row: dict[str, Any], name: str, user: Any, answer: Any) -> list[dict[str, Any]]:
    if not isinstance(user, str) or not user.strip():
        raise ValueError(f"{name} is empty or no text")
    system = row.get("system")
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": user.strip()}, {"role": "assistant", "content": _stripped(answer)}]


def _stripped(answer: Any) -> Any:
    """Old completions begin with a space and end with a newline or a stop mark, which chat does without."""
    return answer.strip() if isinstance(answer, str) else answer


def _pair(row: dict[str, Any], line: int) -> Pair:
    """OpenAI's preference format."""
    given = row.get("input")
    if not isinstance(given, dict):
        raise ValueError(
            'expected {"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}'
        )
    prompt = _without_tools(given, _messages(given, "messages", "input."))
    if prompt[-1].role == "assistant":
        raise ValueError("input.messages ends with an assistant turn; the answers stand in the two outputs")
    answers: list[str] = []
    for name in ("preferred_output", "non_preferred_output"):
        turns = _without_tools(row, _messages(row, name))
        if len(turns) != 1 or turns[0].role != "assistant":
            raise ValueError(f"{name} has {len(turns)} turn(s); expected one, of the assistant")
        answers.append(turns[0].content)
    if answers[0] == answers[1]:
        raise ValueError("both outputs are the same; there is nothing to prefer")
    untrained = tuple(Message(message.role, message.content) for message in prompt)
    return Pair(untrained, answers[0], answers[1], line)


def _task(row: dict[str, Any], line: int) -> Task:
    """OpenAI's reinforcement format: messages that end with the user, and any fields for the grader."""
    messages = _without_tools(row, _messages(row, "messages"))
    if messages[-1].role == "assistant":
        raise ValueError("messages end with an assistant turn; expected the user's last, the model answers")
    prompt = tuple(Message(message.role, message.content) for message in messages)
    return Task(prompt, {name: value for name, value in row.items() if name != "messages"}, line)


def _messages(row: dict[str, Any], name: str, place: str = "") -> tuple[Message, ...]:
    turns = row.get(name)
    if not isinstance(turns, list):
        raise ValueError(f'expected an object with a "{place}{name}" list')
    if not turns:
        raise ValueError(f'"{place}{name}" is empty')
    if row.get("functions"):
        raise ValueError('"functions" is what "tools" was until 2023; write them as "tools"')
    return tuple(_message(turn, f"{place}{name}[{index}]") for index, turn in enumerate(turns))


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise ValueError(f"{where} is no object")
    role = message.get("role")
    if role not in ROLES:
        raise ValueError(f"{where}.role is {role!r}; expected one of {', '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        content = "".join(part["text"] for part in content)
    calls = _calls(message.get("tool_calls") or [], role, where)
    if calls and content is None:
        content = ""
    if not isinstance(content, str) or not (calls or content.strip()):
        raise ValueError(f"{where}.content is empty or no text")
    if message.get("function_call"):
        raise ValueError(f'{where}.function_call is what "tool_calls" was until 2023; write it as those')
    weight = message.get("weight", 1)
    if weight not in (0, 1):
        raise ValueError(f"{where}.weight is {weight!r}; expected 0 or 1")
    return Message(role, content, role == "assistant" and weight == 1, calls, message.get("tool_call_id"))


def _calls(calls: Any, role: str, where: str) -> tuple[dict[str, Any], ...]:
    if calls and role != "assistant":
        raise ValueError(f"{where} is of role {role!r} and calls tools; only the assistant does")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str):
            raise ValueError(f'{where}.tool_calls: expected {{"id", "type": "function", "function": {{...}}}} for each')
        if not isinstance(function.get("name"), str) or not isinstance(function.get("arguments"), str):
            raise ValueError(f"{where}.tool_calls: a function has no name, or its arguments are no JSON text")
    template.written(None, calls)  # raises where arguments are no JSON
    return tuple(calls)


def _tools(tools: Any) -> tuple[dict[str, Any], ...]:
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError('tools: expected {"type": "function", "function": {"name": ...}} for each')
    return tuple(tools)


def _check_calls(messages: Sequence[Message]) -> None:
    """Every call has its result before anybody goes on, as OpenAI checks it."""
    waiting: set[str] = set()
    for index, message in enumerate(messages):
        if message.role == "tool":
            if message.call_id not in waiting:
                raise ValueError(f"messages[{index}] answers the call {message.call_id!r}, which nobody made")
            waiting.discard(message.call_id)
        elif waiting:
            raise ValueError(f"messages[{index}] comes before the result of the call {min(waiting)!r}")
        waiting.update(call["id"] for call in message.calls)


def _without_tools(row: dict[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if row.get("tools") or any(message.calls or message.role == "tool" for message in messages):
        raise ValueError('"tools" are trained by the method "supervised" only; leave these rows out')
    return messages


_PARSERS: dict[Kind, Callable[[dict[str, Any], int], Row]] = {
    "supervised": _example,
    "dpo": _pair,
    "reinforcement": _task,
}
