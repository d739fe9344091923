"""The checks' work grows as the file does, and their memory is bounded: counted, for seconds are another machine's."""

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from adapters.chat import template
from training.data.check import check
from training.data.checks.duplicates import Duplicates, Near, signature
from training.data.checks.tokens import BATCH_CHARACTERS, PIECE_CHARACTERS
from training.data.messages import Message
from training.data.rows import Example
from training.proof import split

WORDS = [f"word{number}" for number in range(5_000)]


def templated(rows: int, own: int = 20) -> list[Example]:
    """Rows of a hundred words, most of which all of them have."""
    dice = random.Random(1)
    shared = " ".join(dice.choices(WORDS, k=100 - own))
    return [
        Example(
            (Message("user", f"{shared} {' '.join(dice.choices(WORDS, k=own))}"), Message("assistant", "", True)), n
        )
        for n in range(rows)
    ]


class Looked(dict[Any, Any]):
    """A dictionary that counts how often somebody looks."""

    times = 0

    def __getitem__(self, key: Any) -> Any:
        self.times += 1
        return super().__getitem__(key)


def test_rows_of_one_template_are_compared_with_a_few_of_their_like() -> None:
    looked: list[int] = []
    for rows in (200, 400):
        duplicates = Duplicates()
        duplicates._near._hashes = seen = Looked()
        for row in templated(rows):
            duplicates.add(row)
        looked.append(seen.times)
    assert 0 < looked[1] < 2.5 * looked[0], looked


def test_rows_of_one_template_are_held_together_by_few_pairs() -> None:
    pairs = [len(list(split._near(templated(rows, own=5)))) for rows in (100, 200)]
    assert 0 < pairs[1] < 2.5 * pairs[0], pairs


def test_what_is_alike_is_found_among_many_of_one_template() -> None:
    near = Near()
    for number, row in enumerate([*templated(300), *templated(300)]):
        signed = signature(row.messages[0].content)
        assert signed is not None
        assert number < 300 or number - 300 in near.twins(signed)
        near.add(number, signed)


def test_rows_under_other_system_messages_are_no_duplicates() -> None:
    duplicates = Duplicates()
    row = templated(1)[0]
    for line in range(4):
        told = Message("system", f"You are the speaker of team {line // 2}.")
        answer = Message("assistant", f"No. {line}", trained=True)
        duplicates.add(Example((told, row.messages[0], answer), line))
    assert duplicates.drops == {1: "nearly the same as line 0", 3: "nearly the same as line 2"}


def test_a_tokenizer_is_given_no_more_than_it_has_room_for(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    one, several = template.encode, template.encode_all
    monkeypatch.setattr(template, "encode", lambda by, text: (given.append(len(text)), one(by, text))[1])
    monkeypatch.setattr(
        template, "encode_all", lambda by, texts: (given.append(sum(map(len, texts))), several(by, texts))[1]
    )
    lengths = [250_000, *[90_000] * 8, *[50] * 10]
    rows = [
        {"messages": [{"role": "user", "content": "a " * (n // 2)}, {"role": "assistant", "content": "b"}]}
        for n in lengths
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = check(file, tokenizer=tokenizer, limit=100_000)
    assert max(given) <= BATCH_CHARACTERS + PIECE_CHARACTERS
    assert sum(lengths) < sum(given) < sum(lengths) + 300 * len(lengths)
    assert [finding.lines for finding in report.findings if finding.check == "too_long"] == [[1]]
    assert report.tokens.longest == pytest.approx(125_000, rel=0.001)


def test_a_long_rows_words_are_hashed_a_few_at_a_time() -> None:
    text = " ".join(random.Random(1).choices(WORDS, k=50_000))
    tracemalloc.start()
    try:
        assert signature(text) is not None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60 * len(text), f"{peak / len(text):.0f} bytes a character"
