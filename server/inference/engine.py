"""The engine's protocol: what routers ask for, what a stream yields, when it ends and what it raises."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


LATER = 100  # priority of batches and the tier `flex`; live requests have 0 and go first
STRUCTURE = "structure"  # `param` of errors in `Sampling.structure`; endpoints put their field's name
MAX_LOGPROBS = 20  # alternatives reported for a token; OpenAI's limit
TOKENS_AT_A_TIME = 256  # log-probabilities read or written before yielding to the event loop


@dataclass(frozen=True)
class Sampling:
    """How to sample; defaults are OpenAI's.

    Attributes:
        max_tokens: limit of each answer; None: the rest of the context.
        ends: tokens that end an answer, besides the tokenizer's end of a text.
        seed: makes sampling repeatable.
        top_logprobs: alternatives reported for each token; None: no log-probabilities at all.
        prompt_logprobs: the same for the prompt's tokens.
        structure: what the answer must look like: one of vLLM's `StructuredOutputsParams` ({"json": schema},
            {"json_object": True}, {"regex": ...}, {"choice": [...]}, {"grammar": ...}).
        more: vLLM's parameters beyond OpenAI's, by vLLM's names (`top_k`, `min_p`, ...).
        streamed: yield deltas as they come; else each answer whole, in one delta.
        priority: higher numbers wait longer.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()
    seed: int | None = None
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None
    prompt_logprobs: int | None = None
    structure: dict[str, Any] | None = None
    more: dict[str, Any] = field(default_factory=dict)
    streamed: bool = True
    priority: int = 0


@dataclass(frozen=True)
class Tools:
    """What the model may call.

    Attributes:
        functions: OpenAI's `tools`, all of type function.
        choice: "auto", "required", or the name of the one function to be called.
        parallel: whether one answer may hold several calls.
    """

    functions: tuple[dict[str, Any], ...]
    choice: str
    parallel: bool = True


@dataclass(frozen=True)
class ToolCallDelta:
    """An addition to one of an answer's calls; id and name come with its first delta only."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token, the natural logarithm of its probability, and the most probable tokens at its place.

    `utf8` holds the token's own bytes; if a character is spread over several tokens, their `token` is a placeholder.
    All bytes of an answer joined are its text, so a token that the text leaves out has none. `logprob` is None for a
    prompt's first token, which nothing predicts.
    """

    token: str
    logprob: float | None
    utf8: bytes
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True)
class Delta:
    """An addition to one of a request's `n` answers.

    Attributes:
        index: which answer, from 0.
        text: new text; empty while a character is incomplete or the text may begin a stop string.
        tokens: how many tokens were generated since the last delta of this answer.
        logprobs: one for each of these tokens, if asked for.
        prompt_logprobs: one for each of the prompt's tokens, if asked for; with the first delta.
        tool_calls: additions to calls; their text is not in `text`.
        finish_reason: None until the answer's last delta, then "stop", "length" or "tool_calls".
        cached_tokens: prompt tokens that came from the prefix cache.
    """

    index: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: str | None = None
    cached_tokens: int = 0


class Engine(Protocol):
    """A base model with adapters.

    A stream yields each delta as soon as there is one, those of the `n` answers interleaved, and ends when every answer
    had a delta with a finish reason. Closing it early frees what the request holds in the engine. It raises
    InvalidRequest before the first delta, later only if the answer cannot follow the structure that was asked for, and
    EngineUnavailable at any moment.
    """

    @property
    def ready(self) -> bool:
        """Whether requests can be answered now."""
        ...

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The base model's tokenizer."""
        ...

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        ...

    def on_loss(self, tell: Callable[[str], object]) -> None:
        """Register `tell`, which is called with the digest of a model that is lost while the engine lives on."""
        ...

    async def start(self) -> None:
        """Load the base model; returns when requests can be answered. Can be called again after `stop`."""
        ...

    async def died(self) -> None:
        """Return when a started engine is dead; every stream has ended with EngineUnavailable, or will soon."""
        ...

    async def stop(self) -> None:
        """End every stream with EngineUnavailable and free the engine."""
        ...

    async def load(self, digest: str, path: Path) -> None:
        """Load a validated adapter: `digest` identifies its content, `path` is its folder, just checked."""
        ...

    async def unload(self, digest: str) -> None:
        """Free an adapter; the caller makes sure that no stream uses it."""
        ...

    def generate(
        self, prompt: list[int], sampling: Sampling, adapter: str | None, tools: Tools | None = None
    ) -> AsyncIterator[Delta]:
        """Answer a prompt of token ids with the base model, or with the loaded adapter of that digest.

        Args:
            tools: tools whose calls are read out of the answer; the prompt already names them.
        """
        ...
