"""Reads a line of training data in any of the accepted forms."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from training.data import messages as turns
from training.data.jsonl import load
from training.data.messages import Message, present
from training.kinds import Kind


@dataclass(frozen=True)
class Example:
    """A conversation whose assistant turns are trained; `line` counts from 1, `tools` are OpenAI's.

    `unread` names the row's keys that nothing reads; the other kinds of row have it too.
    """

    messages: tuple[Message, ...]
    line: int
    tools: tuple[dict[str, Any], ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All text of the row."""
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
    unread: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All text of the row."""
        return _joined(self.prompt, self.answer, self.rejected)


@dataclass(frozen=True)
class Task:
    """A conversation to answer, and the row's own fields, which its grader reads."""

    prompt: tuple[Message, ...]
    item: dict[str, Any]
    line: int
    unread: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All text of the row that a model reads."""
        return _joined(self.prompt)

    @property
    def answer(self) -> str:
        """Empty: a task holds no answer."""
        return ""


Row = Example | Pair | Task


def under(row: Row, system: str) -> Row:
    """The row with a system prompt in front, unless it has a system turn; the server does the same with requests."""
    before = row.messages if isinstance(row, Example) else row.prompt
    if any(turn.role in ("system", "developer") for turn in before):
        return row
    begun = (Message("system", system), *before)
    return replace(row, messages=begun) if isinstance(row, Example) else replace(row, prompt=begun)


def parse(text: str, line: int, kind: Kind) -> Row:
    """A row from a line of `jsonl.lines`; null means absent.

    Raises:
        ValueError: says what is wrong with it and what was expected.
    """
    row = load(text)
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    return _PARSERS[kind](row, line)


def _joined(messages: tuple[Message, ...], *answers: str) -> str:
    return "\n".join([*(message.text for message in messages), *answers])


# The three forms of a supervised row: the key that identifies each, and the other keys that it may have.
_FORMS = {
    "messages": ("tools", "parallel_tool_calls", "functions", "function_call"),
    "completion": ("prompt", "system"),
    "output": ("instruction", "input", "system"),
}


def _example(given: dict[str, Any], line: int) -> Example:
    """Chat as OpenAI defines it, or its older prompt/completion, or Alpaca's instruction/input/output."""
    row = present(given)
    forms = [form for form in _FORMS if form in row] or ["messages"]
    if len(forms) > 1:
        raise ValueError(f"it has both {forms[0]!r} and {forms[1]!r}; one of them would be lost, keep one")
    form = forms[0]
    if form == "completion":
        chat = {"messages": _turns(row, "prompt", row.get("prompt"), row["completion"])}
    elif form == "output":
        extra = row.get("input", "")
        if not isinstance(extra, str):
            raise ValueError("input is no text")
        instruction = row.get("instruction")
        user = f"{instruction}\n\n{extra}" if extra and isinstance(instruction, str) else instruction
        chat = {"messages": _turns(row, "instruction", user, row["output"])}
    else:
        chat = row
    tools = turns.read_tools(chat)
    messages = turns.read(chat, "messages")
    if not any(message.role == "assistant" for message in messages):
        raise ValueError("no assistant turn; there is nothing to learn")
    if not any(message.trained for message in messages):
        raise ValueError("every assistant turn has weight 0; there is nothing to learn")
    turns.check_calls(messages, tools, row.get("parallel_tool_calls", True))
    unread = {key for key in row if key != form and key not in _FORMS[form]}
    unread |= turns.unread(row.get("messages")) | turns.unread_of_tools(chat)
    return Example(messages, line, tools, tuple(sorted(unread)))


def _turns(row: dict[str, Any], name: str, user: Any, answer: Any) -> list[dict[str, Any]]:
    if not isinstance(user, str) or not user.strip():
        raise ValueError(f"{name} is empty or no text")
    system = row.get("system")
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": user.strip()}, {"role": "assistant", "content": _stripped(answer)}]


def _stripped(answer: Any) -> Any:
    """The answer without white space around it: old completions begin with a space and end with a newline."""
    return answer.strip() if isinstance(answer, str) else answer


def _pair(given: dict[str, Any], line: int) -> Pair:
    """OpenAI's preference format."""
    row = present(given)
    source = row.get("input")
    if not isinstance(source, dict):
        raise ValueError(
            'expected {"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}'
        )
    source = present(source)
    _refuse_tools(source)
    _refuse_tools(row)
    prompt = _without_calls(turns.read(source, "messages", "input."))
    if prompt[-1].role == "assistant":
        raise ValueError("input.messages ends with an assistant turn; the answers stand in the two outputs")
    answers: list[str] = []
    for name in ("preferred_output", "non_preferred_output"):
        answer = _without_calls(turns.read(row, name))
        if len(answer) != 1 or answer[0].role != "assistant":
            raise ValueError(f"{name} has {len(answer)} turn(s); expected one, of the assistant")
        if not answer[0].trained:
            raise ValueError(f"{name}[0].weight is 0; both outputs count, leave the row or the weight out")
        answers.append(answer[0].content)
    if answers[0] == answers[1]:
        raise ValueError("both outputs are the same; there is nothing to prefer")
    unread = (
        (row.keys() - {"input", "preferred_output", "non_preferred_output", *_TOOL_KEYS})
        | {f"input.{key}" for key in source if key not in ("messages", *_TOOL_KEYS)}
        | turns.unread(source.get("messages"))
        | turns.unread(row["preferred_output"])
        | turns.unread(row["non_preferred_output"])
    )
    return Pair(_untrained(prompt), answers[0], answers[1], line, tuple(sorted(unread)))


def _task(row: dict[str, Any], line: int) -> Task:
    """OpenAI's reinforcement format: messages that end with a user turn, and any fields for the grader, also null."""
    given = present(row)
    _refuse_tools(given)
    messages = _without_calls(turns.read(given, "messages"))
    if messages[-1].role == "assistant":
        raise ValueError("messages end with an assistant turn; expected the user's last, the model answers")
    item = {name: value for name, value in row.items() if name != "messages"}
    return Task(_untrained(messages), item, line, tuple(sorted(turns.unread(row["messages"]))))


_TOOL_KEYS = ("tools", "functions", "parallel_tool_calls")


def _refuse_tools(row: dict[str, Any]) -> None:
    if row.get("tools") or row.get("functions"):
        raise ValueError('"tools" are trained by the method "supervised" only; leave these rows out')


def _without_calls(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if any(message.calls or message.role == "tool" for message in messages):
        raise ValueError('"tools" are trained by the method "supervised" only; leave these rows out')
    return messages


def _untrained(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    return tuple(replace(message, trained=False) for message in messages)


_PARSERS: dict[Kind, Callable[[dict[str, Any], int], Row]] = {
    "supervised": _example,
    "dpo": _pair,
    "reinforcement": _task,
}
