"""What tests of the state share: what is read from the database."""

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Engine, event


@contextlib.contextmanager
def rows_read(engine: Engine) -> Iterator[list[int]]:
    """How many rows each query gives while the block runs."""
    counts: list[int] = []

    def read(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "LIMIT" in statement or " IN " in statement:
            counts.append(len(cursor.connection.cursor().execute(statement, parameters).fetchall()))

    event.listen(engine, "after_cursor_execute", read)
    yield counts
    event.remove(engine, "after_cursor_execute", read)
