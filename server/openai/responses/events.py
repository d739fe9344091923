"""The events of a stream, by which a response and its items grow."""

from typing import Any

from server.http import statuses
from server.http.pieces import Pieces, dumps
from server.inference.engine import Delta, ToolCallDelta
from server.openai.chat import wire
from server.openai.responses import items
from server.state.ids import random_id


class Events:
    """Writes one response's events; `output` holds the finished items."""

    def __init__(self, response: dict[str, Any]) -> None:
        self._response = response
        self._number = 0
        self._open: dict[str, Any] | None = None  # fields of the message or call that is being written
        self.output: list[dict[str, Any]] = []

    def begin(self) -> list[str]:
        """The events that begin the response."""
        return [
            self._event(f"response.{name}", response={**self._response, "status": "in_progress"})
            for name in ("created", "in_progress")
        ]

    def add(self, delta: Delta) -> list[str]:
        """The events for a delta."""
        events: list[str] = []
        if delta.text or delta.logprobs:
            events += self._open_message()
            assert self._open is not None
            tokens = wire.logprobs(delta.logprobs)
            self._open["text"] += delta.text
            self._open["logprobs"].extend(tokens)
            events.append(self._of_part("response.output_text.delta", delta=delta.text, logprobs=tokens))
        for call in delta.tool_calls:
            events += self._open_call(call)
            assert self._open is not None
            self._open["arguments"] += call.arguments
            if call.arguments:
                events.append(self._of_item("response.function_call_arguments.delta", delta=call.arguments))
        return events

    def close(self, finish_reason: str | None) -> list[str]:
        """The events that end the open item; an empty answer becomes an empty message."""
        events = self._open_message() if self._open is None and not self.output else []
        return events + self._close("incomplete" if finish_reason == "length" else "completed")

    def end(self, response: dict[str, Any]) -> str:
        """The event that ends the response."""
        return self._event(f"response.{response['status']}", response=response)

    def fail(self, error: Exception) -> list[str]:
        """The events of a response that failed."""
        told = statuses.status_and_body(error)[1]["error"]
        response = {
            **self._response,
            "status": "failed",
            "output": self.output,
            "error": {"code": "server_error", "message": told["message"]},
        }
        return [
            self._event("error", code=told["code"], message=told["message"], param=told["param"]),
            self._event("response.failed", response=response),
        ]

    def _open_message(self) -> list[str]:
        if self._open is not None and self._open["type"] == "message":
            return []
        events = self._close("completed")
        self._open = {"type": "message", "id": random_id("msg_", 48), "text": "", "logprobs": Pieces()}
        added = items.message_item(self._open["id"], "", Pieces(), "in_progress")
        return [
            *events,
            self._event("response.output_item.added", output_index=len(self.output), item=added),
            self._of_part("response.content_part.added", part=items.text_part("", Pieces())),
        ]

    def _open_call(self, call: ToolCallDelta) -> list[str]:
        if call.id is None:
            return []
        events = self._close("completed")
        self._open = {
            "type": "call",
            "id": random_id("fc_", 48),
            "call_id": call.id,
            "name": call.name or "",
            "arguments": "",
        }
        added = items.call_item(self._open["id"], call.id, self._open["name"], "", "in_progress")
        return [*events, self._event("response.output_item.added", output_index=len(self.output), item=added)]

    def _close(self, status: str) -> list[str]:
        done, events = self._open, list[str]()
        if done is None:
            return events
        if done["type"] == "message":
            part = items.text_part(done["text"], done["logprobs"])
            events.append(self._of_part("response.output_text.done", text=done["text"], logprobs=done["logprobs"]))
            events.append(self._of_part("response.content_part.done", part=part))
            item = items.message_item(done["id"], done["text"], done["logprobs"], status)
        else:
            events.append(
                self._of_item("response.function_call_arguments.done", arguments=done["arguments"], name=done["name"])
            )
            item = items.call_item(done["id"], done["call_id"], done["name"], done["arguments"], status)
        events.append(self._event("response.output_item.done", output_index=len(self.output), item=item))
        self.output.append(item)
        self._open = None
        return events

    def _of_part(self, kind: str, **fields: Any) -> str:
        return self._of_item(kind, content_index=0, **fields)

    def _of_item(self, kind: str, **fields: Any) -> str:
        assert self._open is not None
        return self._event(kind, item_id=self._open["id"], output_index=len(self.output), **fields)

    def _event(self, kind: str, **fields: Any) -> str:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {kind}\ndata: {dumps(event)}\n\n"
