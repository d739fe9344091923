"""What the server's tables have in common; each stands beside its store. adapters/registry.py owns the adapters'."""

from pathlib import Path

from sqlalchemy import Dialect, Engine, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase

from adapters.database import migrate as migrate_package


class Base(DeclarativeBase):
    """Declarative base."""


class Written(TypeDecorator[str]):
    """Text in a column, stored or looked for; NUL, which PostgreSQL does not take, becomes U+FFFD.

    It comes in with file names of forms and with ids in URLs.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """As the database gets it."""
        return None if value is None else value.replace("\0", "\ufffd")


def migrate(engine: Engine) -> None:
    """Bring these tables to the newest version."""
    migrate_package(engine, Path(__file__).with_name("migrations") / "versions", "server_version")
