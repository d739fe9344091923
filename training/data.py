"""Read chat JSONL and check it before a single step; every complaint names its line."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.defaults import MAX_VALIDATION_ROWS, MIN_ROWS, VALIDATION_SHARE
from training.errors import InvalidTrainingData

ROLES = ("system", "developer", "user", "assistant")
MAX_PROBLEMS_SHOWN = 20


@dataclass(frozen=True)
class Message:
    """One turn; `trained` says whether the loss counts it."""

    role: str
    content: str
    trained: bool


@dataclass(frozen=True)
class Example:
    """A conversation and the line it came from, from 1."""

    messages: tuple[Message, ...]
    line: int


def read(path: Path, param: str = "training_file", min_rows: int = MIN_ROWS) -> list[Example]:
    """The examples of a chat JSONL file, as OpenAI defines it: `{"messages": [...]}` a line, assistant `weight` 0 or 1.

    Raises:
        InvalidTrainingData: lists every faulty line, or says that there are fewer than `min_rows`.
    """
    examples: list[Example] = []
    problems: list[str] = []
    with path.open("rb") as stream:
        for line, raw in enumerate(stream, 1):
            if not raw.strip():
                continue
            try:
                examples.append(_example(raw, line))
            except ValueError as error:
                problems.append(f"line {line}: {error}")
    fail_on(problems, param)
    if len(examples) < min_rows:
        raise InvalidTrainingData(
            f"the file has only {len(examples)} example(s); at least {min_rows} are needed",
            param,
        )
    return examples


def fail_on(problems: Sequence[str], param: str) -> None:
    """Raise InvalidTrainingData with the first problems and the count of all, where there are any."""
    if problems:
        more = f"\n... and {len(problems) - MAX_PROBLEMS_SHOWN} more" if len(problems) > MAX_PROBLEMS_SHOWN else ""
        raise InvalidTrainingData("\n".join(problems[:MAX_PROBLEMS_SHOWN]) + more, param)


def hold_out(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Split off a validation set: a tenth, at least one and at most 200 rows, drawn by `seed`."""
    count = max(1, min(MAX_VALIDATION_ROWS, round(VALIDATION_SHARE * len(examples))))
    chosen = set(random.Random(seed).sample(range(len(examples)), count))
    return (
        [example for index, example in enumerate(examples) if index not in chosen],
        [example for index, example in enumerate(examples) if index in chosen],
    )


def _example(raw: bytes, line: int) -> Example:
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise ValueError('expected an object with a "messages" list')
    if not row["messages"]:
        raise ValueError('"messages" is empty')
    if row.get("tools") or row.get("functions"):
        raise ValueError('"tools" are not supported in training files; leave these rows out')
    messages = tuple(_message(message, index) for index, message in enumerate(row["messages"]))
    if not any(message.role == "assistant" for message in messages):
        raise ValueError("no assistant turn; there is nothing to learn")
    if not any(message.trained for message in messages):
        raise ValueError("every assistant turn has weight 0; there is nothing to learn")
    return Example(messages, line)


def _message(message: Any, index: int) -> Message:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise ValueError(f"{where} is no object")
    role = message.get("role")
    if role not in ROLES:
        raise ValueError(f"{where}.role is {role!r}; expected one of {', '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"{where}.content is empty or no text")
    weight = message.get("weight", 1)
    if weight not in (0, 1):
        raise ValueError(f"{where}.weight is {weight!r}; expected 0 or 1")
    return Message(role, content, role == "assistant" and weight == 1)
