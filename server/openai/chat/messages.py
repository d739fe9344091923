"""Conversations in OpenAI's chat form: checked, and converted to what templates take."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict

from adapters.chat import template
from server.errors import InvalidRequest
from server.inference.catalog import Model
from server.inference.engine import Engine, Tools
from server.inference.prompts import check_length
from training.data.jsonl import quoted
from training.data.messages import TEXT_PARTS
from training.wire import WithoutNulls

MAX_CALLS = 10_000


def joined(content: Any) -> Any:
    """The text of a content that may come in parts; pydantic refuses what is neither text nor parts.

    Raises:
        ValueError: a part is no text.
    """
    if not isinstance(content, list):
        return content
    return "".join(_text(number, part) for number, part in enumerate(content))


def _text(number: int, part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise ValueError(f'part {number} is no object with a type; expected {{"type": "text", "text": "..."}}')
    if kind not in TEXT_PARTS:
        raise ValueError(f"part {number} is of type {quoted(kind)}; this model understands text only")
    text = part.get(TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise ValueError(f"part {number} is of type {kind!r}, and its '{TEXT_PARTS[kind]}' is no string")
    return text


def few_calls(messages: Any) -> Any:
    """The messages, checked to hold no more tool calls than can be read in a tenth of a second.

    Raises:
        ValueError: they hold more.
    """
    calls = 0
    for message in messages if isinstance(messages, list) else ():
        made = message.get("tool_calls") if isinstance(message, dict) else None
        calls += len(made) if isinstance(made, list) else 0
    if calls > MAX_CALLS:
        raise ValueError(f"they hold {calls} tool calls; at most {MAX_CALLS} are read")
    return messages


Content = Annotated[str, BeforeValidator(joined)]


class CalledFunction(WithoutNulls):
    """A function that the model called; arguments are its text, which may not be valid JSON."""

    name: str
    arguments: str = "{}"


class ToolCall(WithoutNulls):
    """A tool call by the model."""

    model_config = ConfigDict(extra="ignore")

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(WithoutNulls):
    """One turn of the conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: Content | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    def turn(self) -> dict[str, Any]:
        """The turn as templates take it."""
        turn: dict[str, Any] = {"role": self.role, "content": self.content or self.refusal or ""}
        if self.name:
            turn["name"] = self.name
        if self.tool_calls:
            turn["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        if self.tool_call_id:
            turn["tool_call_id"] = self.tool_call_id
        return turn


def check_turns(messages: Sequence[ChatMessage]) -> None:
    """Check that every turn has a content and every call a result, as OpenAI does.

    Raises:
        InvalidRequest: names the first that has none.
    """
    waiting: Counter[str] = Counter()
    for number, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id is None or message.tool_call_id not in waiting:
                raise InvalidRequest(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceding message with "
                    "'tool_calls'.",
                    f"messages.[{number}].role",
                )
            waiting[message.tool_call_id] -= 1
            if not waiting[message.tool_call_id]:
                del waiting[message.tool_call_id]
        elif waiting:
            break
        if message.content is None and message.role != "assistant":  # an assistant's answer may be empty
            raise InvalidRequest("Invalid value for 'content': expected a string, got null.", f"messages.[{number}]")
        if message.tool_calls:
            if message.role != "assistant":
                raise InvalidRequest(f"a message with role '{message.role}' calls no tools", f"messages.[{number}]")
            waiting = Counter(call.id for call in message.tool_calls)
    if waiting:
        raise InvalidRequest(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(waiting)}",
            "messages",
        )


def with_instruction(turns: Sequence[dict[str, Any]], instruction: str | None) -> list[dict[str, Any]]:
    """The conversation with the instruction at the end of its system message."""
    if instruction is None:
        return list(turns)
    if turns and turns[0]["role"] in ("system", "developer"):
        return [{**turns[0], "content": f"{turns[0]['content']}\n\n{instruction}"}, *turns[1:]]
    return [{"role": "system", "content": instruction}, *turns]


def prompt_ids(
    turns: Sequence[dict[str, Any]],
    model: Model,
    engine: Engine,
    tools: Tools | None,
    more: Mapping[str, Any] | None = None,
) -> list[int]:
    """The conversation as token ids, with the model's template and system prompt.

    Args:
        more: variables for the template.

    Raises:
        ContextLengthExceeded: the conversation is far too long; see `check_length`.
        TemplateError: the template cannot render it.
    """
    check_length(sum(len(str(value)) for turn in turns for value in turn.values()), engine)
    text = template.render(
        engine.tokenizer,
        with_system_prompt(turns, model.manifest.system_prompt),
        template=model.manifest.chat_template,
        generation_prompt=True,
        tools=tools.functions if tools else (),
        more=more,
    )
    check_length(len(text), engine)
    return template.encode(engine.tokenizer, text)


def with_system_prompt(turns: Sequence[dict[str, Any]], system: str | None) -> list[dict[str, Any]]:
    """The conversation with the adapter's system prompt in front, unless it has a system message."""
    if system is None or any(turn["role"] in ("system", "developer") for turn in turns):
        return list(turns)
    return [{"role": "system", "content": system}, *turns]
