"""Files of rows: read line by line, refused with every faulty line named, split without leakage."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from training.data.jsonl import NotJsonLines, lines
from training.data.rows import Kind, Row, parse
from training.defaults import MAX_VALIDATION_ROWS, MIN_ROWS, VALIDATION_SHARE
from training.errors import InvalidTrainingData

MAX_PROBLEMS_SHOWN = 20

AnyRow = TypeVar("AnyRow", bound=Row)


def read(path: Path, kind: Kind, param: str = "training_file", min_rows: int = MIN_ROWS) -> list[Row]:
    """The rows of a JSONL file.

    Raises:
        InvalidTrainingData: lists every faulty line, or says what else the file is, or that it has too few rows.
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
    """Raise InvalidTrainingData with the first problems and the count of all, where there are any."""
    if problems:
        more = f"\n... and {len(problems) - MAX_PROBLEMS_SHOWN} more" if len(problems) > MAX_PROBLEMS_SHOWN else ""
        raise InvalidTrainingData("\n".join(problems[:MAX_PROBLEMS_SHOWN]) + more, param)


def hold_out(rows: Sequence[AnyRow], seed: int) -> tuple[list[AnyRow], list[AnyRow]]:
    """Split off a validation set: a tenth, at least one and at most 200 rows, drawn by `seed`.

    Rows with the same prompt stay together, so that nothing held out was trained on.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(tuple(message.text for message in row.prompt), []).append(index)
    wanted = max(1, min(MAX_VALIDATION_ROWS, round(VALIDATION_SHARE * len(rows))))
    chosen: set[int] = set()
    for group in random.Random(seed).sample(list(groups.values()), len(groups)):
        if len(chosen) + len(group) <= wanted:
            chosen.update(group)
    if not chosen:  # one prompt for all: the rows differ in their answers only
        chosen = set(random.Random(seed).sample(range(len(rows)), wanted))
    return (
        [row for index, row in enumerate(rows) if index not in chosen],
        [row for index, row in enumerate(rows) if index in chosen],
    )
