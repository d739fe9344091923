"""Splits rows: some are trained on, some choose the checkpoint, some prove. Similar rows never go to two parts.

The rows that choose the checkpoint cannot prove: the best of several checkpoints on them looks better than it is.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from training.data.checks.duplicates import Near, said, signature
from training.data.rows import Row
from training.defaults import MAX_PROOF_ROWS, MAX_SELECTION_ROWS, PROOF_SHARE, SELECTION_SHARE
from training.proof.statistics import MIN_ROWS

AnyRow = TypeVar("AnyRow", bound=Row)
PREAMBLE = 0.5  # a beginning that more rows than this share have is a few-shot preamble, not one conversation


@dataclass(frozen=True)
class Parts(Generic[AnyRow]):
    """The rows by use, each part in the file's order.

    `alike` says which similar rows could not be kept together, if any.
    """

    train: list[AnyRow]
    selection: list[AnyRow]
    proof: list[AnyRow]
    alike: str | None = None


def split(rows: Sequence[AnyRow], validation: Sequence[AnyRow] | None, seed: int) -> Parts[AnyRow]:
    """Hold rows out of the training file, or split the validation file in two; rows are drawn by `seed`.

    Turns of one conversation, rows with the same prompt, and near duplicates stay together.

    Args:
        validation: if given, a quarter of it chooses, as long as ten rows are left to prove, and all `rows` are trained
            on. If None, a tenth of `rows` proves (at least ten rows or a quarter, whichever is less; at most 200), and
            a twentieth chooses.
    """
    if validation is None:
        wanted = max(1, min(MAX_PROOF_ROWS, max(round(PROOF_SHARE * len(rows)), min(MIN_ROWS, len(rows) // 4))))
        (selection, proof), train, alike = _draw(rows, (_selected(SELECTION_SHARE * len(rows)), wanted), seed)
        return Parts(train, selection, proof, alike)
    if len(validation) == 1:  # it proves; a training row has to choose
        (selection,), train, alike = _draw(rows, (1,), seed)
        return Parts(train, selection, list(validation), alike)
    quarter = len(validation) // 4
    chosen = _selected(min(quarter, len(validation) - MIN_ROWS) if len(validation) > MIN_ROWS else quarter)
    wanted = min(MAX_PROOF_ROWS, len(validation) - chosen)
    (selection, proof), _, alike = _draw(validation, (chosen, wanted), seed)
    return Parts(list(rows), selection, proof, alike)


def _selected(rows: float) -> int:
    return max(1, min(MAX_SELECTION_ROWS, round(rows)))


def _draw(
    rows: Sequence[AnyRow], wanted: Sequence[int], seed: int
) -> tuple[list[list[AnyRow]], list[AnyRow], str | None]:
    """Draw `wanted` rows for each part, by whole groups; return parts, other rows, and which groups had to be split."""
    alike: str | None = None
    parts: list[set[int]] = []
    for groups, without in _groupings(rows):
        parts = [set() for _ in wanted]
        for group in random.Random(seed).sample(groups, len(groups)):
            fits = (part for part, most in zip(parts, wanted, strict=True) if len(part) + len(group) <= most)
            if (part := next(fits, None)) is not None:
                part.update(group)
        if all(2 * len(part) >= most for part, most in zip(parts, wanted, strict=True)):
            break
        alike = without
    drawn = [[row for index, row in enumerate(rows) if index in part] for part in parts]
    taken = set[int]().union(*parts)
    return drawn, [row for index, row in enumerate(rows) if index not in taken], alike


def _groupings(rows: Sequence[Row]) -> Iterator[tuple[list[list[int]], str]]:
    """Ways to group rows that belong together, strictest first; each with the message if it cannot be kept."""
    same = list(_same_conversation(rows))
    yield _connected(len(rows), same + list(_near(rows))), "nearly the same rows are on both sides"
    yield _connected(len(rows), same), "rows of one conversation, or of one prompt, are on both sides"
    yield [[index] for index in range(len(rows))], ""


def _connected(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    ends = np.array(pairs, dtype=int).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(connected_components(graph, directed=False)[1].tolist()):
        groups.setdefault(label, []).append(index)
    return list(groups.values())


def _same_conversation(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Pairs of rows with the same prompt, or of which one continues the other."""
    begins: dict[bytes, list[int]] = {}
    whole: set[bytes] = set()
    for index, row in enumerate(rows):
        digest = blake2b(digest_size=8)
        for message in row.prompt:
            if message.role == "assistant":
                begins.setdefault(digest.digest(), []).append(index)
            digest.update(repr((message.role, message.text)).encode())
        begins.setdefault(digest.digest(), []).append(index)
        whole.add(digest.digest())
    for key, members in begins.items():
        if key in whole or len(members) <= PREAMBLE * len(rows):
            yield from ((members[0], other) for other in members[1:])


def _near(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Pairs of near duplicates; each row is paired with a few similar ones only."""
    known = Near()
    for place, row in enumerate(rows):
        mine = signature(said(row))
        if mine is None:
            continue
        yield from ((twin, place) for twin in known.twins(mine))
        known.add(place, mine)
