"""Wire types of `POST /v1/chat/completions`: what comes in, checked; what goes out, written once a request.

A stream's chunk differs from the next only in its delta, so everything around it is written once and the text is
spliced in: 0.2 us a chunk where three pydantic objects and their dump cost 12.7.
"""

import json
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters.manifest import SamplingDefaults
from server.generation import Sampling, TokenLogprob, Unsupported
from server.state.ids import random_id

# Fields known to OpenAI or vLLM and not to us, with the values that ask for nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
}


class TextPart(BaseModel):
    """A content part; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn of the conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["developer", "system", "user", "assistant"]
    content: str | list[TextPart]

    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A request; unknown fields are ignored, as OpenAI does, and null means absent."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int | None = Field(default=None, ge=1, le=128)
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    user: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("'top_logprobs' needs 'logprobs' to be true")
        if any(not stop for stop in ([self.stop] if isinstance(self.stop, str) else self.stop or ())):
            raise ValueError("'stop' holds an empty string")
        return self

    def refuse_unsupported(self) -> None:
        """Raise Unsupported for the first field that asks for what we cannot do."""
        for field, harmless in UNSUPPORTED.items():
            value = (self.model_extra or {}).get(field)
            if value is not None and value not in harmless:
                raise Unsupported(field)

    def sampling(self, defaults: SamplingDefaults) -> Sampling:
        """How to sample: the request's own values, else the adapter's, else OpenAI's."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(
            max_tokens=self.max_completion_tokens or self.max_tokens or defaults.max_completion_tokens,
            temperature=_first(self.temperature, defaults.temperature, 1.0),
            top_p=_first(self.top_p, defaults.top_p, 1.0),
            stop=stop,
            seed=self.seed,
            n=self.n or 1,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=self.logit_bias or {},
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """OpenAI's log-probabilities of an answer or a chunk."""

    def entry(token: TokenLogprob) -> dict[str, Any]:
        return {"token": token.token, "logprob": token.logprob, "bytes": list(token.token.encode())}

    return {
        "content": [{**entry(token), "top_logprobs": [entry(other) for other in token.top]} for token in tokens],
        "refusal": None,
    }


class Writer:
    """Writes one request's answer or chunks."""

    def __init__(self, model: str, include_usage: bool = False) -> None:
        self._identity = {
            "id": random_id("chatcmpl-", 29),
            "created": int(time.time()),
            "model": model,
            "service_tier": "default",
            "system_fingerprint": None,
        }
        self._head = json.dumps({"object": "chat.completion.chunk", **self._identity})[:-1]
        self._tail = ', "usage": null}\n\n' if include_usage else "}\n\n"

    def answer(self, choices: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """The whole answer."""
        return {"object": "chat.completion", **self._identity, "choices": choices, "usage": usage}

    def chunk(self, index: int, delta: str, tokens: str = "null", finish_reason: str | None = None) -> str:
        """A chunk as an event; `delta` and `tokens` (its log-probabilities) are JSON."""
        reason = "null" if finish_reason is None else f'"{finish_reason}"'
        choice = f'{{"index": {index}, "delta": {delta}, "logprobs": {tokens}, "finish_reason": {reason}}}'
        return f'data: {self._head}, "choices": [{choice}]{self._tail}'

    def usage_chunk(self, usage: dict[str, Any]) -> str:
        """The chunk with the usage, last where it was asked for."""
        return f'data: {self._head}, "choices": [], "usage": {json.dumps(usage)}}}\n\n'
