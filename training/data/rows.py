"""A line of training data, in every form that is taken; a faulty one says what is wrong with it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

ROLES = ("system", "developer", "user", "assistant")

Kind = Literal["supervised", "dpo", "reinforcement"]


@dataclass(frozen=True)
class Message:
    """One turn; `trained` says whether the loss counts it."""

    role: str
    content: str
    trained: bool = False


@dataclass(frozen=True)
class Example:
    """A conversation to learn the assistant's turns of; `line` counts from 1."""

    messages: tuple[Message, ...]
    line: int

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
        return self.messages[self._last].content

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
    return "\n".join([*(message.content for message in messages), *answers])


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
    return Example(messages, line)


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
    prompt = _messages(given, "messages", "input.")
    if prompt[-1].role == "assistant":
        raise ValueError("input.messages ends with an assistant turn; the answers stand in the two outputs")
    answers: list[str] = []
    for name in ("preferred_output", "non_preferred_output"):
        turns = _messages(row, name)
        if len(turns) != 1 or turns[0].role != "assistant":
            raise ValueError(f"{name} has {len(turns)} turn(s); expected one, of the assistant")
        answers.append(turns[0].content)
    if answers[0] == answers[1]:
        raise ValueError("both outputs are the same; there is nothing to prefer")
    untrained = tuple(Message(message.role, message.content) for message in prompt)
    return Pair(untrained, answers[0], answers[1], line)


def _task(row: dict[str, Any], line: int) -> Task:
    """OpenAI's reinforcement format: messages that end with the user, and any fields for the grader."""
    messages = _messages(row, "messages")
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
    if row.get("tools") or row.get("functions"):
        raise ValueError('"tools" are not supported in training files; leave these rows out')
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
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"{where}.content is empty or no text")
    weight = message.get("weight", 1)
    if weight not in (0, 1):
        raise ValueError(f"{where}.weight is {weight!r}; expected 0 or 1")
    return Message(role, content, role == "assistant" and weight == 1)


_PARSERS: dict[Kind, Callable[[dict[str, Any], int], Row]] = {
    "supervised": _example,
    "dpo": _pair,
    "reinforcement": _task,
}
