"""`tuneport eval`: ask two served models the same held-out prompts, grade the answers, compare with an interval."""

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from server.cli.client import NoAnswer, fault, read_json
from server.cli.evaluation.answers import Endpoint, Kept, ask, first_model
from training.data.reading import read
from training.data.rows import Row
from training.errors import InvalidTrainingData
from training.graders.default import DEFAULT_GRADERS
from training.graders.judge import Judge
from training.graders.models import Grader
from training.proof.scoring import BASE, TUNED, score
from training.proof.statistics import Comparison
from training.render import turns


def evaluate(
    model: str,
    against: str | None,
    data: Path,
    graders: Path | None,
    max_tokens: int,
    here: Endpoint,
    there: Endpoint,
    answers_file: Path | None,
    as_json: bool,
) -> int:
    """Print the comparison; return the exit status: 0 whatever the result, 1 if a grader or a model failed.

    Args:
        here, there: endpoints of the model and of the one it is compared with.
        answers_file: where answers are kept; a run that goes on reads them from it.
    """
    console = Console(markup=False, highlight=False)
    chosen = _graders(graders)
    try:
        rows = read(data, "supervised", "data", min_rows=1)
        with Kept(answers_file) as kept:
            asked = asyncio.run(_ask_both(model, against, here, there, rows, max_tokens, kept, console))
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
    model: str,
    against: str | None,
    here: Endpoint,
    there: Endpoint,
    rows: Sequence[Row],
    max_tokens: int,
    kept: Kept,
    console: Console,
) -> tuple[str, list[list[str]]]:
    base = against or await first_model(there)
    answers: list[list[str]] = []
    for endpoint, name in ((there, base), (here, model)):
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True) as shown:
            bar = shown.add_task(escape(name), total=len(rows))
            answers.append(await ask(endpoint, name, rows, max_tokens, kept, partial(shown.advance, bar)))
    return base, answers


def _print(console: Console, base: str, model: str, comparisons: Sequence[Comparison]) -> None:
    for one in comparisons:
        table = Table(*one.cells(), title=f"{one.grader}: {base} against {model}", title_justify="left")
        table.add_row(*one.cells().values())
        console.print(table)
        console.print(one.sentence())
