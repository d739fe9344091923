"""Wire types of `POST /v1/chat/completions`: the checked request, and a writer of answers and chunks.

A stream's chunks differ only in their deltas, so all the rest is serialised once, and each delta is put into it: 0.2 us
per chunk, where three pydantic objects and their serialisation cost 12.7 us.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from adapters.manifest import SamplingDefaults
from server.errors import InvalidRequest
from server.inference.engine import MAX_LOGPROBS, Sampling, TokenLogprob, ToolCallDelta, Tools
from server.openai.chat import structure
from server.openai.chat.messages import ChatMessage, check_turns, few_calls
from server.openai.chat.sampling import TextRequest, Tokens
from server.openai.chat.tools import MAX_TOOLS, Choice, Tool, choose
from server.state.ids import random_id

MAX_MESSAGES = 10_000


class ChatRequest(TextRequest):
    """A request for the next turn of a conversation."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES), BeforeValidator(few_calls)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: structure.Format | None = None
    chat_template_kwargs: structure.AnyObject | None = None

    @field_validator("top_logprobs")
    @classmethod
    def _of_logprobs(cls, wanted: int | None, beside: ValidationInfo) -> int | None:
        if wanted and not beside.data.get("logprobs"):
            raise ValueError("it needs 'logprobs' to be true")
        return wanted

    def check(self) -> None:
        """Refuse fields that contradict each other, as OpenAI does.

        Raises:
            InvalidRequest: names the first contradiction.
        """
        self.check_stream()
        check_turns(self.messages)
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise InvalidRequest(
                "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.", "max_tokens"
            )

    def callable_tools(self) -> Tools | None:
        """The tools that the model may call; see `choose`."""
        return choose(self.tools or [], self.tool_choice, self.parallel_tool_calls is not False)

    def sampling(self, defaults: SamplingDefaults) -> Sampling:
        """Sampling parameters: the request's values, else the adapter's, else OpenAI's."""
        return replace(
            self.sampling_fields(defaults),
            max_tokens=self.max_completion_tokens or self.max_tokens or defaults.max_completion_tokens,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            structure=self.structure_for(self.response_format, "response_format"),
        )


def logprobs(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Log-probabilities in OpenAI's form."""

    def entry(token: TokenLogprob) -> dict[str, Any]:
        return {"token": token.token, "logprob": token.logprob, "bytes": list(token.utf8)}

    return [{**entry(token), "top_logprobs": [entry(other) for other in token.top]} for token in tokens]


def call_deltas(calls: Sequence[ToolCallDelta]) -> list[dict[str, Any]]:
    """A chunk's tool calls: always the index; id, type and name only once, since LangChain4j joins repetitions."""
    return [
        {"index": call.index, "function": {"arguments": call.arguments}}
        if call.id is None
        else {
            "index": call.index,
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]


class Writer:
    """Writes one request's answer or chunks."""

    def __init__(self, model: str, tier: str, include_usage: bool = False) -> None:
        self._identity = {
            "id": random_id("chatcmpl-", 29),
            "created": int(time.time()),
            "model": model,
            "service_tier": tier,
            "system_fingerprint": None,
        }
        self._head = json.dumps({"object": "chat.completion.chunk", **self._identity})[:-1]
        self._tail = ', "usage": null}\n\n' if include_usage else "}\n\n"

    def answer(self, choices: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """The whole answer."""
        return {"object": "chat.completion", **self._identity, "choices": choices, "usage": usage}

    def chunk(self, index: int, delta: str, tokens: str = "null", finish_reason: str | None = None) -> str:
        """A chunk as an event; `delta` and `tokens` (its log-probabilities) are JSON text."""
        reason = "null" if finish_reason is None else f'"{finish_reason}"'
        choice = f'{{"index": {index}, "delta": {delta}, "logprobs": {tokens}, "finish_reason": {reason}}}'
        return f'data: {self._head}, "choices": [{choice}]{self._tail}'

    def usage_chunk(self, usage: dict[str, Any]) -> str:
        """The chunk with the usage, which comes last if asked for."""
        return f'data: {self._head}, "choices": [], "usage": {json.dumps(usage)}}}\n\n'
