"""Gathers a request's deltas into whole answers."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from server.inference.answering import Generation
from server.inference.engine import TOKENS_AT_A_TIME, Delta
from server.state.ids import random_id


@dataclass
class Call:
    """A whole tool call; arguments are JSON text."""

    id: str
    name: str
    arguments: str = ""


@dataclass
class Answer:
    """One of a request's answers."""

    text: str = ""
    calls: list[Call] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, delta: Delta) -> None:
        """Add a delta."""
        self.text += delta.text
        for call in delta.tool_calls:
            if call.index == len(self.calls):
                self.calls.append(Call(call.id or random_id("call_", 24), call.name or ""))
            self.calls[call.index].arguments += call.arguments
        self.finish_reason = delta.finish_reason


async def gather(generation: Generation, tell: Callable[[Delta], None]) -> list[Answer]:
    """The whole answers.

    Args:
        tell: called with each delta (see `parted`), so that log-probabilities are serialised as they come.
    """
    answers = [Answer() for _ in range(generation.answers)]
    async for delta in generation:
        answers[delta.index].add(delta)
        for part in parted(delta):
            tell(part)
            await asyncio.sleep(0)
    return answers


def parted(delta: Delta) -> Iterator[Delta]:
    """The delta, split if it has log-probabilities of many tokens, as a prompt's has; the text comes first."""
    if len(delta.prompt_logprobs) + len(delta.logprobs) <= TOKENS_AT_A_TIME:
        yield delta
        return
    yield replace(delta, prompt_logprobs=(), logprobs=(), finish_reason=None)
    for name in ("prompt_logprobs", "logprobs"):
        tokens = getattr(delta, name)
        for start in range(0, len(tokens), TOKENS_AT_A_TIME):
            yield replace(Delta(delta.index, "", 0), **{name: tokens[start : start + TOKENS_AT_A_TIME]})
    yield Delta(delta.index, "", 0, finish_reason=delta.finish_reason)
