"""Tables, in a real SQLite database."""

from sqlalchemy import Engine

from server.state.keys import Keys
from server.state.tables import migrate


def test_migrating_twice_changes_nothing(database: Engine) -> None:
    Keys(database).create("ann")
    migrate(database)
    assert [key.name for key in Keys(database).list()] == ["ann"]
