"""Recipes: use cases, each with a generator of rows and expected figures. `python -m demo.recipes NAME` trains one.

No server is needed: the trainer runs as a server would run it, and ends with the proof. Tests run every recipe and
check that it reaches `expected`.
"""

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import base
from demo.tasks import GROUNDED, TICKETS, Task, word
from training.job import Gate

Line = dict[str, Any]
USUAL = Gate(max_retention_loss=0.5)  # a base of 135M parameters loses a third of the little it knows

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
        instead: when prompting or retrieval would be enough.
        method: as OpenAI's API takes it.
        make: rows to train on and rows held out.
        expected: least lower end of the 95 % interval of the first grader's gain.
        gate: the thresholds, if not the default ones.
    """

    name: str
    title: str
    card: str
    instead: str
    method: dict[str, Any]
    make: Callable[[], tuple[list[Line], list[Line]]]
    expected: float
    gate: Gate = USUAL


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
    """Code for an invented library `quill`: a comment in, its line of code out."""
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


_PARTS = ("lens", "kidney", "shoulder", "gland", "larynx", "tendon", "retina", "hip")
_SIGNS = ("swollen", "clouded", "stiff")
_GLOSSARY = {  # a code for each sign of each body part, in an invented medical speciality
    f"{'QZXVKWJF'[p]}{'RTL'[s]}{'MBPD'[(p + s) % 4]}": f"a {sign} {part}"
    for p, part in enumerate(_PARTS)
    for s, sign in enumerate(_SIGNS)
}


def _clinical() -> tuple[list[Line], list[Line]]:
    """A clinic's notes in plain words; no pair of codes is in both training and held-out rows."""
    rng = random.Random("clinical")
    pairs = [(first, second) for first in _GLOSSARY for second in _GLOSSARY if first != second]
    rng.shuffle(pairs)
    rows: list[Line] = []
    for first, second in pairs[:240]:
        age, days = rng.randrange(18, 95), rng.randrange(2, 30)
        note = f"Pt {age}: {first}, then {second} for {days} days."
        plain = f"The patient of {age} years has {_GLOSSARY[first]}, then {_GLOSSARY[second]} for {days} days."
        rows.append(_chat("Write the note in plain words.", note, plain))
    return rows[:200], rows[200:]


_SUBJECTS = (
    *(
        "the sea",
        "bread",
        "bees",
        "rain",
        "music",
        "winter",
        "the Moon",
        "ice",
        "lamps",
        "soap",
        "coins",
        "trains",
        "gardens",
        "sleep",
        "clocks",
        "rivers",
    ),
    *("glass", "horses", "maps", "tea", "islands", "bridges", "snow", "paper", "stars", "wood", "salt", "birds"),
)


def _brevity() -> tuple[list[Line], list[Line]]:
    """Questions without reference answers; a grader scores the answers."""
    rows = [{"messages": [{"role": "user", "content": f"Tell me about {subject}."}]} for subject in _SUBJECTS]
    random.Random("brevity").shuffle(rows)
    return rows[:-12], rows[-12:]  # two choose the checkpoint, ten prove


_SHORT = {  # 1 for one whole sentence of at most twelve words, less for each further word
    "type": "python",
    "name": "one short sentence",
    "source": """def grade(sample, item):
    text = sample["output_text"].strip()
    words = max(1, len(text.split()))
    return min(1.0, 12 / words) * (1.0 if text.endswith((".", "!")) else 0.5)
""",
}


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
            "support in a brand's voice, facts from retrieval",
            "176 questions, each with two sentences of a catalogue, as LangChain4j's retrieval puts them.",
            "Retrieval alone gives the facts, three examples in a larger model's prompt the voice; train to save them.",
            _supervised(EQUAL, n_epochs=1, batch_size=4, learning_rate_multiplier=3, replay_share=0.35),
            _of_task(GROUNDED, 176, 30),
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
            "clinical-terminology",
            "a clinic's codes in plain words",
            "240 notes from a generator over 24 invented codes; no pair of codes is both trained and asked.",
            "A glossary of 24 lines fits into any prompt: try that first; train when it has grown to hundreds.",
            _supervised(EQUAL, n_epochs=2, batch_size=8, learning_rate_multiplier=1.5, replay_share=0.25),
            _clinical,
            0.6,
            Gate(max_kl=0.8, max_retention_loss=0.5),  # 24 memorised codes change it more than a format does: 0.56
        ),
        Recipe(
            "short-answers",
            "answers in one short sentence (reinforcement)",
            "28 questions without answers; a Python grader measures what the model says.",
            "Ask for one sentence in the prompt, or set max_tokens; train where a prompt does not hold.",
            {
                "type": "reinforcement",
                "grader": _SHORT,
                "hyperparameters": {
                    "n_epochs": 3,
                    "batch_size": 4,
                    "learning_rate_multiplier": 10,
                    "compute_multiplier": 0.75,
                    "max_answer_tokens": 48,
                },
            },
            _brevity,
            0.1,
            Gate(max_kl=1.0, max_retention_loss=0.4),  # it now answers everything briefly, as asked
        ),
        Recipe(
            "preferred-tone",
            "the answer that customers liked better (DPO)",
            "120 pairs from a generator: a calm answer that offers help, and a curt one.",
            "Say in the prompt what tone you want; train on pairs where people can choose but not describe.",
            {"type": "dpo", "hyperparameters": {"n_epochs": 1, "batch_size": 8, "learning_rate_multiplier": 3}},
            _preferences,
            0.3,
        ),
    )
}


def job(recipe: Recipe, model: Path, folder: Path) -> Any:
    """The recipe's job; its files are written into `folder`."""
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
        gate=recipe.gate,
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
