"""What `tuneport eval` does: ask two served models the same held-out prompts, grade, compare with an interval."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from adapters.chat import template
from server.cli.client import NoAnswer, authorization, content_of, fault, read_json
from training.data.reading import read
from training.data.rows import Row
from training.errors import InvalidTrainingData
from training.graders.default import DEFAULT_GRADERS
from training.graders.judge import Judge
from training.graders.models import Grader
from training.proof.scoring import BASE, TUNED, score
from training.proof.statistics import Comparison
from training.render import tools, turns

AT_ONCE = 32
TIMEOUT_SECONDS = 600


def evaluate(
    model: str,
    against: str | None,
    data: Path,
    graders: Path | None,
    max_tokens: int,
    url: str,
    key: str,
    as_json: bool,
) -> int:
    """Print the comparison; return the exit status: 0 whatever the result, 1 where a grader or a model failed."""
    console = Console(markup=False, highlight=False)
    chosen = _graders(graders)
    try:
        rows = read(data, "supervised", "data", min_rows=1)
        asked = asyncio.run(_ask_both(url, key, model, against, rows, max_tokens, console))
    except (InvalidTrainingData, NoAnswer) as error:
        console.print(f"error: {error}", style="red", soft_wrap=True)
        return 1
    base, answers = asked
    items = [{"reference": row.answer, "messages": turns(row.prompt)} for row in rows]
    judge = Judge.from_environment()
    scored = [score(grader, items, {BASE: answers[0], TUNED: answers[1]}, judge) for grader in chosen]
    comparisons = [one for scores in scored if (one := scores.compare(BASE, base))]
    failures = [scores.failure for scores in scored if scores.failure]
    if as_json:
        content = {
            "base": base,
            "model": model,
            "comparisons": [one.model_dump() for one in comparisons],
            "failures": [one.model_dump() for one in failures],
        }
        print(json.dumps(content, indent=2))
    else:
        _print(console, base, model, comparisons)
    for failure in failures:
        Console(stderr=True, markup=False, highlight=False).print(
            f"error: the grader {failure.sentence()}", style="red", soft_wrap=True
        )
    return 1 if failures else 0


def _graders(path: Path | None) -> Sequence[Grader]:
    if path is None:
        return DEFAULT_GRADERS
    content = read_json(path)
    several = content if isinstance(content, list) else [content]
    try:
        return TypeAdapter(list[Grader]).validate_python(several)
    except ValidationError as error:
        raise typer.BadParameter(f"{path}: {fault(error, several)}", param_hint="--graders") from error


async def _ask_both(
    url: str, key: str, model: str, against: str | None, rows: Sequence[Row], max_tokens: int, console: Console
) -> tuple[str, list[list[str]]]:
    async with httpx.AsyncClient(
        base_url=_base_url(url), headers=authorization(key), timeout=TIMEOUT_SECONDS
    ) as client:
        base = against or (await _checked(client.get("/v1/models")))["data"][0]["id"]
        answers: list[list[str]] = []
        for name in (base, model):
            with Progress(console=console, transient=True) as progress:
                bar = progress.add_task(escape(name), total=len(rows))
                answers.append(await _ask(client, name, rows, max_tokens, lambda bar=bar: progress.advance(bar)))
        return base, answers


async def _ask(
    client: httpx.AsyncClient, model: str, rows: Sequence[Row], max_tokens: int, tick: Callable[[], object]
) -> list[str]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(row: Row) -> str:
        body: dict[str, Any] = {
            "model": model,
            "messages": turns(row.prompt),
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        if shown := tools(row):
            body["tools"] = list(shown)
        async with room:
            answer = await _checked(client.post("/v1/chat/completions", json=body))
        tick()
        message = answer["choices"][0]["message"]
        return template.written(message["content"], message.get("tool_calls") or ()).strip()

    return await asyncio.gather(*(one(row) for row in rows))


async def _checked(request: Any) -> dict[str, Any]:
    try:
        answer: httpx.Response = await request
    except httpx.RequestError as error:
        raise NoAnswer(f"no answer from {error.request.url}: {error}") from error
    return content_of(answer, str(answer.url))


def _base_url(url: str) -> httpx.URL:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        raise NoAnswer(f"no answer from {url}: {error}") from error


def _print(console: Console, base: str, model: str, comparisons: Sequence[Comparison]) -> None:
    for one in comparisons:
        table = Table(*one.cells(), title=f"{one.grader}: {base} against {model}", title_justify="left")
        table.add_row(*one.cells().values())
        console.print(table)
        console.print(one.sentence())
