"""Items of a conversation, in `input` and `output`, and their conversion to a template's turns."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Tag

from server.errors import InvalidRequest
from server.http.pieces import Pieces
from server.inference.answers import Answer
from server.openai.chat.messages import joined
from server.state.ids import random_id
from training.wire import WithoutNulls


class Message(WithoutNulls):
    """A message; its type may be left out."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[str, BeforeValidator(joined)] | None = None

    def wire(self) -> dict[str, Any]:
        """As the API lists it."""
        said = self.role == "assistant"
        part: dict[str, Any] = {"type": "output_text" if said else "input_text", "text": self.content or ""}
        if said:
            part |= {"annotations": [], "logprobs": []}
        return {
            "id": random_id("msg_", 48),
            "type": "message",
            "status": "completed",
            "role": self.role,
            "content": [part],
        }


class FunctionCall(WithoutNulls):
    """A function call by the model."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str = "{}"

    def wire(self) -> dict[str, Any]:
        """As the API lists it."""
        return {"id": random_id("fc_", 48), "status": "completed", **self.model_dump()}


class FunctionCallOutput(WithoutNulls):
    """The result of a call."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["function_call_output"]
    call_id: str
    output: Annotated[str, BeforeValidator(joined)]

    def wire(self) -> dict[str, Any]:
        """As the API lists it."""
        return {"id": random_id("fco_", 48), "status": "completed", **self.model_dump()}


def _type(item: Any) -> str:
    return str(item.get("type") or "message") if isinstance(item, dict) else str(getattr(item, "type", "message"))


Item = Annotated[
    Annotated[Message, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")],
    Discriminator(
        _type,
        custom_error_type="unknown_item",
        custom_error_message="only messages, function calls and their outputs are understood",
    ),
]


def turns(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items as turns of a conversation, as templates take them.

    Raises:
        InvalidRequest: a call without an output, or an output without a call.
    """
    conversation: list[dict[str, Any]] = []
    open_calls: dict[str, None] = {}
    for item in items:
        if item["type"] == "function_call_output":
            if item["call_id"] not in open_calls:
                raise InvalidRequest(
                    f"No tool call found for function call output with call_id {item['call_id']}.", "input"
                )
            del open_calls[item["call_id"]]
            conversation.append({"role": "tool", "content": item["output"], "tool_call_id": item["call_id"]})
        elif item["type"] == "function_call":
            last = conversation[-1] if conversation else None
            if last is None or last["role"] != "assistant":
                conversation.append(last := {"role": "assistant", "content": ""})
            function = {"name": item["name"], "arguments": item["arguments"]}
            last.setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": function})
            open_calls[item["call_id"]] = None
        else:
            conversation.append({"role": item["role"], "content": joined(item["content"])})
    if open_calls:
        raise InvalidRequest(f"No tool output found for function call {next(iter(open_calls))}.", "input")
    return conversation


def message_item(item_id: str, text: str, logprobs: Pieces, status: str) -> dict[str, Any]:
    """A message by the model; while in progress, it has no content."""
    part = text_part(text, logprobs)
    content = [] if status == "in_progress" else [part]
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def text_part(text: str, logprobs: Pieces) -> dict[str, Any]:
    """The content of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def call_item(item_id: str, call_id: str, name: str, arguments: str, status: str) -> dict[str, Any]:
    """A function call by the model, as an item."""
    return {
        "id": item_id,
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def without_logprobs(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """An answer's items without log-probabilities, to be stored."""
    return [
        {**item, "content": [{**part, "logprobs": []} for part in item["content"]]} if "content" in item else item
        for item in items
    ]


def output(answer: Answer, logprobs: Pieces) -> list[dict[str, Any]]:
    """A whole answer's items; an empty answer becomes an empty message."""
    status = "incomplete" if answer.finish_reason == "length" else "completed"
    calls = [call_item(random_id("fc_", 48), call.id, call.name, call.arguments, status) for call in answer.calls]
    if calls and not answer.text:
        return calls
    return [message_item(random_id("msg_", 48), answer.text, logprobs, status), *calls]
