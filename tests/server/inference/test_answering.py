"""Several prompts' streams are one stream, whichever comes first, and end together."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from server.inference.answering import _merged
from server.inference.engine import Delta

pytestmark = pytest.mark.anyio


async def test_deltas_come_as_they_are_made_and_know_their_prompt() -> None:
    second = asyncio.Event()

    async def first_prompt() -> AsyncGenerator[Delta, None]:
        await second.wait()
        yield Delta(1, "b", 1)

    async def second_prompt() -> AsyncGenerator[Delta, None]:
        yield Delta(0, "a", 1)
        second.set()

    deltas = [(delta.index, delta.text) async for delta in _merged([first_prompt(), second_prompt()], n=2)]
    assert deltas == [(2, "a"), (1, "b")]


@pytest.mark.parametrize("broken", [True, False])
async def test_when_one_breaks_or_the_reader_goes_all_end(broken: bool) -> None:
    ended = asyncio.Event()

    async def waiting() -> AsyncGenerator[Delta, None]:
        try:
            await asyncio.Event().wait()
            yield Delta(0, "", 1)
        finally:
            ended.set()

    async def breaking() -> AsyncGenerator[Delta, None]:
        yield Delta(0, "a", 1)
        raise RuntimeError("broken")

    merged = _merged([waiting(), breaking()], n=1)
    assert (await anext(merged)).index == 1
    if broken:
        with pytest.raises(RuntimeError, match="broken"):
            await anext(merged)
    else:
        await merged.aclose()
    assert ended.is_set()
