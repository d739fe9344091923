"""Exact and near duplicates, rows that are in both files, and prompts with two answers.

Near duplicates are found by MinHash over triples of words (datasketch). Reworded rows have a Jaccard similarity of 0.72
and more in our trials; "Deduplicating Training Data Makes Language Models Better" (2022) uses 0.8. The index is our
own: for rows made from one template, datasketch's finds all others for each row, and 100,000 took quadratic time.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from hashlib import blake2b

import numpy as np
from datasketch import MinHash

from training.data.findings import Finding, found
from training.data.messages import Message
from training.data.rows import Example, Pair, Row

NEAR = 0.72
NEAR_LEAKAGE = 0.8
PERMUTATIONS = 128  # estimates the similarity to within 0.04
BAND = 10  # equal hashes in a row make two texts candidates: at similarity 0.72 a third of the pairs, at 0.9 all
MOST_ALIKE = 8  # texts kept for each value of a band
MIN_WORDS = 8  # in shorter texts, three common words mean nothing
_AT_ONCE = 4_096  # triples hashed at a time, `PERMUTATIONS` times each: all of a long row's would take 1 GB
_WORDS = re.compile(r"\w+")


@cache
def _empty() -> MinHash:
    return MinHash(num_perm=PERMUTATIONS)


class Near:
    """An index of texts, by number, that finds those nearly equal to another; 3 KB each."""

    def __init__(self, least: float = NEAR) -> None:
        """Find texts of at least this similarity."""
        self._least = least
        self._alike: dict[int, list[int]] = {}  # band of hashes -> numbers of texts
        self._hashes: dict[int, np.ndarray] = {}  # number -> hashes, in 32 bits to save memory

    def twins(self, signed: MinHash, within: bytes = b"") -> Iterator[int]:
        """The numbers of nearly equal texts, ascending; bands give candidates, whose hashes are then compared."""
        mine = signed.hashvalues.astype(np.uint32)
        for number in sorted({one for band in _bands(mine, within) for one in self._alike.get(band, ())}):
            if np.count_nonzero(self._hashes[number] == mine) >= self._least * PERMUTATIONS:
                yield number

    def add(self, number: int, signed: MinHash, within: bytes = b"") -> None:
        """Add a text, which only searches with the same `within` will find."""
        self._hashes[number] = signed.hashvalues.astype(np.uint32)
        for band in _bands(self._hashes[number], within):
            alike = self._alike.setdefault(band, [])
            if len(alike) < MOST_ALIKE:
                alike.append(number)


def _bands(hashes: np.ndarray, within: bytes) -> list[int]:
    return [
        hash((start, within, hashes[start : start + BAND].tobytes())) for start in range(0, PERMUTATIONS - BAND, BAND)
    ]


def said(row: Row) -> str:
    """A row's text without system messages, which are the same in most rows."""
    messages: Sequence[Message] = row.messages if isinstance(row, Example) else row.prompt
    answers = [row.answer, row.rejected] if isinstance(row, Pair) else []
    return "\n".join([*(one.text for one in messages if one.role not in ("system", "developer")), *answers])


def signature(text: str) -> MinHash | None:
    """The text's MinHash, similar for near duplicates; None if the text is too short."""
    words = _WORDS.findall(text.lower())
    if len(words) < MIN_WORDS:
        return None
    signed = _empty().copy()
    triples = list({" ".join(words[i : i + 3]).encode() for i in range(len(words) - 2)})
    for start in range(0, len(triples), _AT_ONCE):
        signed.update_batch(triples[start : start + _AT_ONCE])
    return signed


class Duplicates:
    """Exact and near duplicates within a file, and rows that are in another file too.

    Rows are kept as hashes, about 3 KB each, most of it the index. Near duplicates must have the same system message.
    """

    def __init__(self, other: Iterable[Row] = ()) -> None:
        """Compare with `other` too, the rows of the validation file."""
        self.drops: dict[int, str] = {}
        self._exact: dict[bytes, int] = {}
        self._near = Near()
        self._other_exact: dict[bytes, int] = {}
        self._other_near = Near(NEAR_LEAKAGE)
        self._lines: dict[str, list[int]] = {"same": [], "near": [], "leaked": [], "nearly_leaked": []}
        for row in other:
            self._other_exact.setdefault(_digest(row.text), row.line)
            if (signed := signature(said(row))) is not None:
                self._other_near.add(row.line, signed)

    def add(self, row: Row) -> None:
        """See a row."""
        digest, signed = _digest(row.text), signature(said(row))
        if digest in self._other_exact:
            self._note("leaked", row.line, f"the validation file has it too, in line {self._other_exact[digest]}")
        elif signed is not None and (leak := next(self._other_near.twins(signed), None)) is not None:
            self._note("nearly_leaked", row.line, f"the validation file has nearly the same in line {leak}")
        first = self._exact.setdefault(digest, row.line)
        if first != row.line:
            self._note("same", row.line, f"the same as line {first}")
            return
        if signed is None:
            return
        told = _digest("\n".join(one.text for one in row.prompt if one.role in ("system", "developer")))
        twin = next(self._near.twins(signed, told), None)
        if twin is not None:
            self._note("near", row.line, f"nearly the same as line {twin}")
        else:
            self._near.add(row.line, signed, told)

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found."""
        leaked, nearly, same, near = (self._lines[key] for key in ("leaked", "nearly_leaked", "same", "near"))
        yield from found(
            "leakage",
            "error",
            leaked,
            f"{len(leaked)} rows are in the validation file too, and would be answered by heart. Take them out of one",
        )
        yield from found(
            "near_leakage", "warning", nearly, f"{len(nearly)} rows are nearly the same as rows of the validation file"
        )
        yield from found(
            "duplicates", "warning", same, f"{len(same)} rows repeat an earlier one; the model learns them by heart"
        )
        yield from found(
            "near_duplicates",
            "warning",
            near,
            f"{len(near)} rows are nearly the same as an earlier one ({NEAR:.0%} of their word triples and more)",
        )

    def _note(self, kind: str, line: int, why: str) -> None:
        self._lines[kind].append(line)
        self.drops.setdefault(line, why)


class Contradictions:
    """Different answers to one prompt."""

    def __init__(self) -> None:
        self.drops: dict[int, str] = {}
        self._first: dict[bytes, tuple[bytes, int]] = {}
        self._lines: list[int] = []

    def add(self, row: Row) -> None:
        """See a row."""
        if not row.answer:
            return
        answer = _digest(row.answer)
        first, line = self._first.setdefault(
            _digest("\n".join(message.text for message in row.prompt)), (answer, row.line)
        )
        if answer != first:
            self._lines.append(row.line)
            self.drops[row.line] = f"another answer to the prompt of line {line}"

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found."""
        yield from found(
            "contradicting_answers",
            "warning",
            self._lines,
            f"{len(self._lines)} rows answer a prompt of an earlier row differently; decide which answer is right",
        )


def _digest(text: str) -> bytes:
    return blake2b(" ".join(text.split()).encode(), digest_size=8).digest()
