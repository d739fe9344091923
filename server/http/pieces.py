"""Serialises values in which some arrays are JSON text already.

The log-probabilities of a long answer are megabytes; serialising them at once would stop all other streams for a
second. So they are serialised as they come, and joined at the end.
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
    """An array that is JSON text already, in pieces of several elements each."""

    written: list[str] = field(default_factory=list)

    def extend(self, elements: Iterable[Any]) -> None:
        """Serialise and add elements."""
        if inner := json.dumps(list(elements))[1:-1]:
            self.written.append(inner)


def dumps(value: Any, **form: Any) -> str:
    """As `json.dumps`, for a value in which arrays may be Pieces."""
    arrays: list[str] = []

    def place(pieces: Pieces) -> str:
        arrays.append(f"[{', '.join(pieces.written)}]")
        return _PLACE

    first, *rest = json.dumps(value, default=place, **form).split(f'"{_PLACE}"')
    return first + "".join(array + between for array, between in zip(arrays, rest, strict=True))


class JSONText(Response):
    """A JSON response whose content may hold Pieces."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body, formatted as FastAPI does."""
        return dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
