"""Counts how many of a task's unseen prompts a model answers right, through the API like any other client."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openai import AsyncOpenAI

from demo.tasks import Message, Row

CLIENTS = 32
MAX_TOKENS = 64


@dataclass(frozen=True)
class Score:
    """`right` of `total` answers were exactly right."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """The share of right answers, 0 to 1."""
        return self.right / self.total

    def __str__(self) -> str:
        return f"{self.right} of {self.total}"


async def score(
    client: AsyncOpenAI, model: str, rows: Sequence[Row], answered: Callable[[], object] = lambda: None
) -> Score:
    """Ask every row's prompt with greedy sampling, a few at a time; `answered` is called after each answer."""
    room = asyncio.Semaphore(CLIENTS)

    async def right(row: Row) -> bool:
        async with room:
            answer = await ask(client, model, row.messages)
        answered()
        return row.right(answer)

    verdicts = await asyncio.gather(*(right(row) for row in rows))
    return Score(sum(verdicts), len(verdicts))


async def ask(client: AsyncOpenAI, model: str, messages: Sequence[Message]) -> str:
    """A model's greedy answer."""
    completion = await client.chat.completions.create(
        model=model,
        messages=list(messages),  # pyright: ignore[reportArgumentType]
        temperature=0,
        max_tokens=MAX_TOKENS,
    )
    return completion.choices[0].message.content or ""
