"""JSON of which parts are written already.

The log-probabilities of a long answer are megabytes; to write them at once would stop everybody else's stream for a
second. So they are written as they come, and joined at the end.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from fastapi import Response

_PLACE = token_hex()


@dataclass
class Pieces:
    """An array whose elements are JSON already, some of them to a piece."""

    written: list[str] = field(default_factory=list)

    def extend(self, elements: Iterable[Any]) -> None:
        """Write more elements."""
        if inner := json.dumps(list(elements))[1:-1]:
            self.written.append(inner)


def dumps(value: Any, **form: Any) -> str:
    """JSON, as `json.dumps` has it, of a value in which arrays may be Pieces."""
    arrays: list[str] = []

    def place(pieces: Pieces) -> str:
        arrays.append(f"[{', '.join(pieces.written)}]")
        return _PLACE

    first, *rest = json.dumps(value, default=place, **form).split(f'"{_PLACE}"')
    return first + "".join(array + between for array, between in zip(arrays, rest, strict=True))


class JSONText(Response):
    """An answer as JSON, Pieces in it or not."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body, in FastAPI's form."""
        return dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
