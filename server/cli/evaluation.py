"""What `tuneport eval` does: ask two served models the same held-out prompts, grade, compare with an interval."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from adapters.chat import template
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


class CannotEvaluate(Exception):
    """Says why not."""


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
    console = Console()
    try:
        rows = read(data, "supervised", "data", min_rows=1)
        chosen = _graders(graders)
        asked = asyncio.run(_ask_both(url, key, model, against, rows, max_tokens, console))
    except (InvalidTrainingData, CannotEvaluate) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
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
        Console(stderr=True).print(
            f"error: the grader {failure.sentence()}", style="red", highlight=False, markup=False
        )
    return 1 if failures else 0


def _graders(path: Path | None) -> Sequence[Grader]:
    if path is None:
        return DEFAULT_GRADERS
    try:
        content = json.loads(path.read_bytes())
        return TypeAdapter(list[Grader]).validate_python(content if isinstance(content, list) else [content])
    except ValidationError as error:
        first = error.errors()[0]
        raise CannotEvaluate(f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ValueError as error:
        raise CannotEvaluate(f"{path.name} is not JSON: {error}") from error


async def _ask_both(
    url: str, key: str, model: str, against: str | None, rows: Sequence[Row], max_tokens: int, console: Console
) -> tuple[str, list[list[str]]]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        base = against or (await _checked(client.get("/v1/models")))["data"][0]["id"]
        answers: list[list[str]] = []
        for name in (base, model):
            with Progress(console=console, transient=True) as progress:
                bar = progress.add_task(name, total=len(rows))
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
        content: dict[str, Any] = answer.json()
    except (httpx.TransportError, ValueError) as error:
        raise CannotEvaluate(f"no answer: {error!r}") from error
    if not answer.is_success:
        raise CannotEvaluate(content.get("error", {}).get("message", f"status {answer.status_code}"))
    return content


def _print(console: Console, base: str, model: str, comparisons: Sequence[Comparison]) -> None:
    for one in comparisons:
        table = Table(*one.cells(), title=f"{one.grader}: {base} against {model}", title_justify="left")
        table.add_row(*one.cells().values())
        console.print(table)
        console.print(one.sentence(), highlight=False, markup=False)
