"""Rows that are there twice, nearly twice, in both files, or with two answers to one prompt.

Near duplicates by MinHash over words in threes (datasketch): reworded rows have a Jaccard similarity of 0.72 and more
in our trials, "Deduplicating Training Data Makes Language Models Better" (2022) uses 0.8.
"""

import re
from collections.abc import Hashable, Iterable, Iterator
from functools import cache
from hashlib import blake2b

import numpy as np
from datasketch import MinHash, MinHashLSH

from training.data.findings import Finding, found
from training.data.rows import Row

NEAR = 0.72
NEAR_LEAKAGE = 0.8
PERMUTATIONS = 128  # the similarity is guessed to 0.04
MIN_WORDS = 8  # below, three words in common are no likeness
_WORDS = re.compile(r"\w+")


@cache
def _empty() -> MinHash:
    return MinHash(num_perm=PERMUTATIONS)


class Near:
    """Texts by their numbers, found again by what is nearly the same."""

    def __init__(self) -> None:
        self._index = MinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS)
        self._hashes: dict[Hashable, np.ndarray] = {}  # as 32 bits each, for there are many to keep

    def twins(self, signed: MinHash) -> Iterator[int]:
        """Those nearly the same; the index only guesses, so each is compared."""
        for number in self._index.query(signed):
            same = np.count_nonzero(self._hashes[number] == signed.hashvalues.astype(np.uint32))
            if same >= NEAR * PERMUTATIONS:
                yield int(str(number))

    def add(self, number: int, signed: MinHash) -> None:
        """Keep one."""
        self._index.insert(number, signed, check_duplication=False)
        self._hashes[number] = signed.hashvalues.astype(np.uint32)


def signature(text: str) -> MinHash | None:
    """What near duplicates have nearly in common; None where the text is too short to have any."""
    words = _WORDS.findall(text.lower())
    if len(words) < MIN_WORDS:
        return None
    signed = _empty().copy()
    signed.update_batch({" ".join(words[i : i + 3]).encode() for i in range(len(words) - 2)})
    return signed


class Duplicates:
    """Exact and near duplicates within a file, and rows that another file holds too.

    Rows are kept as hashes: about 5 KB a row, most of it the index.
    """

    def __init__(self, other: Iterable[Row] = ()) -> None:
        """Compare with `other`, the validation file's rows, too."""
        self.drops: dict[int, str] = {}
        self._exact: dict[bytes, int] = {}
        self._near = Near()
        self._other_exact: dict[bytes, int] = {}
        self._other_near = MinHashLSH(threshold=NEAR_LEAKAGE, num_perm=PERMUTATIONS)
        self._lines: dict[str, list[int]] = {"same": [], "near": [], "leaked": [], "nearly_leaked": []}
        for row in other:
            self._other_exact.setdefault(_digest(row.text), row.line)
            if (signed := signature(row.text)) is not None:
                self._other_near.insert(row.line, signed)

    def add(self, row: Row) -> None:
        """See a row."""
        digest, signed = _digest(row.text), signature(row.text)
        if digest in self._other_exact:
            self._note("leaked", row.line, f"the validation file has it too, in line {self._other_exact[digest]}")
        elif signed is not None and self._other_exact and (twins := self._other_near.query(signed)):
            self._note("nearly_leaked", row.line, f"the validation file has nearly the same in line {twins[0]}")
        first = self._exact.setdefault(digest, row.line)
        if first != row.line:
            self._note("same", row.line, f"the same as line {first}")
            return
        if signed is None:
            return
        twin = next(self._near.twins(signed), None)
        if twin is not None:
            self._note("near", row.line, f"nearly the same as line {twin}")
        else:
            self._near.add(row.line, signed)

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
