"""Reads a file of rows line by line, and refuses it with all faulty lines named."""

from collections.abc import Sequence
from pathlib import Path

from training.data.jsonl import NotJsonLines, lines
from training.data.rows import Row, parse
from training.defaults import MIN_ROWS
from training.errors import InvalidTrainingData
from training.kinds import Kind

MAX_PROBLEMS_SHOWN = 20


def read(path: Path, kind: Kind, param: str = "training_file", min_rows: int = MIN_ROWS) -> list[Row]:
    """The rows of a JSONL file.

    Raises:
        InvalidTrainingData: lists the faulty lines, or says what else the file is, or that it has too few rows.
    """
    rows: list[Row] = []
    problems: list[str] = []
    try:
        for number, text in lines(path):
            try:
                rows.append(parse(text, number, kind))
            except ValueError as error:
                problems.append(f"line {number}: {error}")
    except NotJsonLines as error:
        raise InvalidTrainingData(str(error), param) from None
    fail_on(problems, param)
    if len(rows) < min_rows:
        raise InvalidTrainingData(
            f"the file has only {len(rows)} example(s); at least {min_rows} are needed",
            param,
        )
    return rows


def fail_on(problems: Sequence[str], param: str) -> None:
    """If there are problems, raise InvalidTrainingData with the first ones and how many more there are."""
    if problems:
        more = f"\n... and {len(problems) - MAX_PROBLEMS_SHOWN} more" if len(problems) > MAX_PROBLEMS_SHOWN else ""
        raise InvalidTrainingData("\n".join(problems[:MAX_PROBLEMS_SHOWN]) + more, param)
