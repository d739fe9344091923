"""What tests of the state share: a real SQLite database, and what is read from it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from adapters.database import connect
from server.state.tables import migrate


@pytest.fixture
def database(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'db'}")
    migrate(engine)
    return engine


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
