"""No row does two of these: train, choose the checkpoint, prove. Nor does its like."""

import json
import random

import pytest

from training.data.rows import Example, Message, Task
from training.proof.split import Parts, split

TEXT = "amber birch cedar delta ember frost grove haven ivory jade karst lilac maple north ocean pearl"
WORDS = TEXT.split()


def example(line: int, *turns: str) -> Example:
    """Turns of user and assistant, the last to be trained."""
    roles = ("user", "assistant")
    messages = [Message(roles[index % 2], text, trained=index == len(turns) - 1) for index, text in enumerate(turns)]
    return Example(tuple(messages), line)


def plain(count: int) -> list[Example]:
    return [example(line, f"prompt {line}", str(line)) for line in range(count)]


def lines(parts: Parts[Example]) -> list[list[int]]:
    return [[row.line for row in part] for part in (parts.train, parts.selection, parts.proof)]


@pytest.mark.parametrize(
    ("rows", "chosen", "proof"),
    [(10, 1, 2), (20, 1, 5), (40, 2, 10), (100, 5, 10), (1_000, 50, 100), (5_000, 100, 200)],
)
def test_parts_of_a_file(rows: int, chosen: int, proof: int) -> None:
    train, selection, proving = lines(split(plain(rows), None, 3))
    assert (len(selection), len(proving)) == (chosen, proof)
    assert sorted([*train, *selection, *proving]) == list(range(rows)), "each row does one thing"


def test_the_seed_draws_from_the_whole_file() -> None:
    parts = split(plain(3_000), None, 3)
    assert lines(split(plain(3_000), None, 3)) == lines(parts)
    assert lines(split(plain(3_000), None, 4)) != lines(parts)
    assert 1_200 < sum(row.line for row in parts.proof) / len(parts.proof) < 1_800, "not the first of them"


@pytest.mark.parametrize(
    ("given", "chosen", "proof"), [(1, 1, 1), (2, 1, 1), (8, 2, 6), (11, 1, 10), (40, 10, 30), (1_000, 100, 200)]
)
def test_a_validation_file_is_parted_too(given: int, chosen: int, proof: int) -> None:
    validation = [example(-1 - line, f"held {line}", str(line)) for line in range(given)]
    train, selection, proving = lines(split(plain(100), validation, 1))
    assert (len(selection), len(proving)) == (chosen, proof)
    assert not {*train} & {*selection}
    assert not {*selection} & {*proving}
    assert all(line < 0 for line in proving)


def test_rows_of_one_prompt_are_never_parted() -> None:
    parts = split([example(line, f"prompt {line % 20}", str(line)) for line in range(100)], None, 1)
    prompts = [{row.prompt for row in part} for part in (parts.train, parts.selection, parts.proof)]
    assert parts.alike is None
    assert all(prompts)
    assert sum(map(len, prompts)) == len(set[object]().union(*prompts))


def test_no_held_out_answer_of_an_unrolled_conversation_was_trained_on() -> None:
    """Each conversation is there after every turn: of 20 held-out answers 15 stood in the training rows."""
    rows: list[Example] = []
    for talk in range(40):
        turns = [f"{talk} says {WORDS[turn]}" for turn in range(10)]
        rows += [example(len(rows) + end, *turns[:end]) for end in (2, 4, 6, 8, 10)]
    parts = split(rows, None, 1)
    trained = {message.text for row in (*parts.train, *parts.selection) for message in row.messages}
    assert len(parts.proof) == 20
    assert not [row for row in parts.proof if row.answer in trained]


def test_near_duplicates_are_never_parted() -> None:
    dice = random.Random(0)
    texts = [" ".join(dice.choices(WORDS, k=40)) for _ in range(50)]
    rows = [example(line, f"{texts[line // 4]} {line % 4}", "ok") for line in range(200)]
    parts = split(rows, None, 1)
    asked = [{row.line // 4 for row in part} for part in (parts.train, parts.selection, parts.proof)]
    assert parts.alike is None
    assert sum(map(len, asked)) == 50


def test_examples_that_begin_every_row_make_no_conversation_of_them() -> None:
    rows = [example(line, "shout", "SHOUT", f"prompt {line}", str(line)) for line in range(100)]
    parts = split(rows, None, 1)
    assert parts.alike is None
    assert len(parts.proof) == 10


def test_rows_that_cannot_be_held_apart_are_parted_and_it_is_said() -> None:
    same = split([example(line, "the same", str(line)) for line in range(40)], None, 1)
    assert len(same.proof) == 10
    assert same.alike == "rows of one conversation, or of one prompt, are on both sides"
    near = split([example(line, f"{' '.join(WORDS)} {line}", str(line)) for line in range(40)], None, 1)
    assert near.alike == "nearly the same rows are on both sides"
    assert not {row.prompt for row in near.train} & {row.prompt for row in near.proof}


def test_tasks_and_their_items_are_parted_like_others() -> None:
    tasks = [Task((Message("user", json.dumps(line)),), {"answer": line}, line) for line in range(40)]
    assert len(split(tasks, None, 1).proof) == 10
