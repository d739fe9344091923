"""Recipes: a use case each, from its generator to the figures to expect. `python -m demo.recipes NAME` trains one.

No server is needed: the trainer runs as the server would run it, and ends with its proof. Tests run every recipe and
hold it to `expected`.
"""

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import base
from demo.tasks import BRAND_VOICE, TICKETS, Task, word

Line = dict[str, Any]

EQUAL = {
    "type": "string_check",
    "name": "exact match",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "operation": "eq",
}


@dataclass(frozen=True)
class Recipe:
    """A use case.

    Attributes:
        card: what the rows are and where they come from.
        instead: when prompting or retrieval would do.
        method: as OpenAI's API takes it.
        make: rows to train on and rows held out.
        expected: the lower end of the first grader's 95 % interval of the gain, at least.
    """

    name: str
    title: str
    card: str
    instead: str
    method: dict[str, Any]
    make: Callable[[], tuple[list[Line], list[Line]]]
    expected: float


def _supervised(*graders: dict[str, Any], **hyperparameters: Any) -> dict[str, Any]:
    return {"type": "supervised", "hyperparameters": hyperparameters, "graders": list(graders)}


def _of_task(task: Task, train: int, held_out: int) -> Callable[[], tuple[list[Line], list[Line]]]:
    def make() -> tuple[list[Line], list[Line]]:
        both = task.rows(train, held_out)
        first, second = ([json.loads(row.jsonl()) for row in rows] for rows in both)
        return first, second

    return make


def _chat(system: str, user: str, answer: str) -> Line:
    messages = [("system", system), ("user", user), ("assistant", answer)]
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


_TABLES = ("orders", "customers", "parts", "invoices", "crews", "routes")


def _library() -> tuple[list[Line], list[Line]]:
    """Completions for `quill`, a library that exists nowhere: a comment in, its line of code out."""
    rng = random.Random("quill")
    rows: list[Line] = []
    for _ in range(220):
        table, field, number, limit = (
            rng.choice(_TABLES),
            word(rng, 2).lower(),
            rng.randrange(10, 9999),
            rng.randrange(1, 99),
        )
        comment, code = rng.choice(
            (
                (
                    f"get {limit} {table} where {field} is {number}",
                    f'quill.draw("{table}", {field}={number}).top({limit})',
                ),
                (f"count {table} where {field} is {number}", f'quill.tally("{table}", {field}={number})'),
                (f"delete {table} where {field} is {number}", f'quill.scratch("{table}", {field}={number}).ink()'),
            )
        )
        rows.append(_chat("Complete the code with our library quill.", f"# {comment}", code))
    return rows[:190], rows[190:]


_QUESTIONS = (
    "How do I reset my {thing}?",
    "Where can I buy a {thing}?",
    "My {thing} makes a noise. What now?",
    "How long does a {thing} last?",
    "Can I return my {thing}?",
    "Is my {thing} still under warranty?",
)


def _preferences() -> tuple[list[Line], list[Line]]:
    """Pairs of answers to a shop's customers: the calm one that offers help is preferred to the curt one."""
    rng = random.Random("preferences")
    rows: list[Line] = []
    for _ in range(150):
        thing = word(rng, 3)
        asked = rng.choice(_QUESTIONS).format(thing=thing)
        kind = f"Thank you for asking about your {thing}. We are happy to help: please send us its serial number."
        curt = f"Look at the manual of the {thing}. It is all in there, there is nothing more that we can do."
        rows.append(
            {
                "input": {"messages": [{"role": "user", "content": asked}]},
                "preferred_output": [{"role": "assistant", "content": kind}],
                "non_preferred_output": [{"role": "assistant", "content": curt}],
            }
        )
    return rows[:120], rows[120:]


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "structured-extraction",
            "tickets to JSON",
            "176 tickets from a generator; names, products and numbers are random and occur once.",
            "A larger model does this with a JSON schema in its prompt; train where the model is small.",
            _supervised(EQUAL, n_epochs=1, batch_size=4, learning_rate_multiplier=3),
            _of_task(TICKETS, 176, 30),
            0.6,
        ),
        Recipe(
            "brand-voice",
            "support in a brand's voice",
            "176 answers from a generator in one voice; names, products and numbers occur once.",
            "Three examples in a larger model's prompt carry a voice; train to save them.",
            _supervised(EQUAL, n_epochs=1, batch_size=4, learning_rate_multiplier=3),
            _of_task(BRAND_VOICE, 176, 30),
            0.6,
        ),
        Recipe(
            "private-codebase",
            "completion with a library that exists nowhere",
            "190 comments with their line of code; tables repeat, fields and numbers do not.",
            "Put the library's signatures into the prompt first; train where they do not fit or are used all day.",
            _supervised(EQUAL, n_epochs=1, batch_size=4, learning_rate_multiplier=3),
            _library,
            0.5,
        ),
        Recipe(
            "preferred-tone",
            "the answer that customers liked better (DPO)",
            "120 pairs from a generator: a calm answer that offers help, and a curt one.",
            "Say in the prompt what tone you want; train on pairs where people can choose but not describe.",
            {"type": "dpo", "hyperparameters": {"n_epochs": 1, "batch_size": 8, "learning_rate_multiplier": 5}},
            _preferences,
            0.3,
        ),
    )
}


def job(recipe: Recipe, model: Path, folder: Path) -> Any:
    """The recipe's job, its files written into `folder`."""
    from training.job import TrainingJob

    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for name, rows in zip(("train", "held_out"), recipe.make(), strict=True):
        files.append(folder / f"{name}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return TrainingJob(
        id=f"ftjob-{recipe.name}",
        base_model=base.NAME,
        base_path=model.absolute(),
        training_file=files[0].absolute(),
        validation_file=files[1].absolute(),
        method=recipe.method,  # pyright: ignore[reportArgumentType] (pydantic reads it)
        seed=1,
    )


def main(arguments: list[str]) -> int:
    """Train the recipe named, or list them."""
    if len(arguments) != 1 or arguments[0] not in RECIPES:
        for recipe in RECIPES.values():
            print(f"{recipe.name:22} {recipe.title}\n{'':22} data: {recipe.card}\n{'':22} first: {recipe.instead}")
        return 0 if not arguments else 2
    from rich.console import Console

    from server.cli.training import follow
    from training.directory import JobDirectory
    from training.job import Result

    recipe = RECIPES[arguments[0]]
    folder = Path("var/recipes") / recipe.name
    console = Console(highlight=False)
    directory = JobDirectory.create((folder / "job").absolute(), job(recipe, base.prepare(Path("var/models")), folder))
    outcome = follow(directory, console)
    if not isinstance(outcome, Result):
        console.print(f"failed: {outcome.message if outcome else 'the trainer died'}; log: {directory.log_file}")
        return 1
    console.print(f"expected: a gain of surely more than {recipe.expected}. Report: {directory.report_html}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
