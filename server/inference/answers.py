"""A request's deltas gathered into whole answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from server.inference.answering import Generation
from server.inference.engine import Delta, TokenLogprob
from server.state.ids import random_id


@dataclass
class Call:
    """A whole call; arguments are JSON text."""

    id: str
    name: str
    arguments: str = ""


@dataclass
class Answer:
    """One of a request's answers; `logprobs` is None where none were asked for."""

    text: str = ""
    calls: list[Call] = field(default_factory=list)
    logprobs: list[TokenLogprob] | None = None
    prompt_logprobs: Sequence[TokenLogprob] = ()
    finish_reason: str | None = None

    def add(self, delta: Delta) -> None:
        """Take what was added."""
        self.text += delta.text
        for call in delta.tool_calls:
            if call.index == len(self.calls):
                self.calls.append(Call(call.id or random_id("call_", 24), call.name or ""))
            self.calls[call.index].arguments += call.arguments
        if delta.logprobs:
            self.logprobs = [*(self.logprobs or ()), *delta.logprobs]
        self.prompt_logprobs = delta.prompt_logprobs or self.prompt_logprobs
        self.finish_reason = delta.finish_reason


async def gather(generation: Generation) -> list[Answer]:
    """All answers, once they are whole."""
    answers = [Answer() for _ in range(generation.answers)]
    async for delta in generation:
        answers[delta.index].add(delta)
    return answers
