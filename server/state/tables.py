"""What the server's tables have in common; each stands beside its store. adapters/registry.py owns the adapters'."""

from pathlib import Path

from sqlalchemy import Dialect, Engine, String, TypeDecorator
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from adapters.database import migrate as migrate_package

# Of two transactions that make the same number or the same pair, the later one looks again.
again_on_conflict = retry(
    retry=retry_if_exception_type(IntegrityError), stop=stop_after_attempt(20), wait=wait_random(0, 0.2), reraise=True
)


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
