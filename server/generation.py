"""The engine as routers see it: what they ask for, what a stream yields, when it ends and what it raises.

EngineError
├── InvalidRequest        (ValueError)    the engine cannot do what was asked; `param` names the field
│   ├── ContextLengthExceeded             prompt and answer do not fit
│   └── Unsupported                       a field that OpenAI has and this server does not
├── AdapterLoadFailed     (RuntimeError)  the engine refused an adapter that had passed validation
└── EngineUnavailable     (RuntimeError)  not started yet, stopping, or dead
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class EngineError(Exception):
    """Base of what an engine raises on purpose."""


class InvalidRequest(EngineError, ValueError):
    """The engine cannot do what was asked."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.param = param

    def __str__(self) -> str:
        return str(self.args[0])


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer do not fit into the model's context."""


class Unsupported(InvalidRequest):
    """A field that OpenAI has and this server does not; an answer that ignored it would be wrong."""

    def __init__(self, field: str) -> None:
        super().__init__(f"'{field}' is not supported by this server; leave it out", field)


class AdapterLoadFailed(EngineError, RuntimeError):
    """The engine refused an adapter that had passed validation."""


class EngineUnavailable(EngineError, RuntimeError):
    """The engine is starting, stopping or dead."""


@dataclass(frozen=True)
class Sampling:
    """How to sample; defaults are OpenAI's.

    Attributes:
        max_tokens: of each answer; None: what the context leaves.
        seed: makes sampling repeatable; None: it is not.
        top_logprobs: alternatives reported for each token; None: no log-probabilities at all.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token, the natural logarithm of its probability, and the most probable ones in its place."""

    token: str
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True)
class Delta:
    """What was added to one of a request's `n` answers.

    Attributes:
        index: which answer, from 0.
        text: new text; may be empty while a character is incomplete or a stop string may be beginning.
        tokens: how many tokens were generated since the last delta of this answer.
        logprobs: one for each of them, where they were asked for.
        finish_reason: None until the answer's last delta, then "stop" or "length".
        cached_tokens: prompt tokens that came from the prefix cache.
    """

    index: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None
    cached_tokens: int = 0


class Engine(Protocol):
    """A base model with adapters.

    A stream yields a delta as soon as there is one, deltas of the `n` answers interleaved, and ends after the last
    answer's delta with a finish reason. Closing it early frees what the request holds in the engine. It raises
    InvalidRequest before the first delta only, and EngineUnavailable at any moment.
    """

    @property
    def ready(self) -> bool:
        """Whether requests can be answered now."""
        ...

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The base model's tokenizer."""
        ...

    async def start(self) -> None:
        """Load the base model; returns when requests can be answered. Can be called again after `stop`."""
        ...

    async def died(self) -> None:
        """Return when a started engine is dead; every stream has ended with EngineUnavailable, or is about to."""
        ...

    async def stop(self) -> None:
        """End every stream with EngineUnavailable and free the engine."""
        ...

    async def load(self, digest: str, path: Path) -> None:
        """Make a validated adapter usable; `digest` identifies its content, `path` holds it and was just read."""
        ...

    async def unload(self, digest: str) -> None:
        """Free an adapter; the caller knows that no stream uses it."""
        ...

    def generate(self, prompt: list[int], sampling: Sampling, adapter: str | None) -> AsyncIterator[Delta]:
        """Answer a prompt of token ids with the base model, or with the loaded adapter of that digest."""
        ...
