"""What tests of the server's rooms share."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from adapters.database import connect
from server.state.tables import migrate


@pytest.fixture
def database(tmp_path: Path) -> Engine:
    """A real SQLite database with the server's tables."""
    engine = connect(f"sqlite:///{tmp_path / 'db'}")
    migrate(engine)
    return engine
