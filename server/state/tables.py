"""Shared by the server's tables, each of which is in its store's module. adapters/registry.py has its own tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Dialect, Engine, Select, String, TypeDecorator, func, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from adapters.database import migrate as migrate_package
from server.errors import InvalidRequest

Statement = TypeVar("Statement", bound=Select[*tuple[Any, ...]])

# If two transactions insert the same number or pair, the later one tries again.
again_on_conflict = retry(
    retry=retry_if_exception_type(IntegrityError), stop=stop_after_attempt(20), wait=wait_random(0, 0.2), reraise=True
)


class Base(DeclarativeBase):
    """SQLAlchemy's declarative base for the server's tables."""


class Written(TypeDecorator[str]):
    """A text column; NUL, which PostgreSQL does not take, becomes U+FFFD, in values and in queries.

    NUL can come in file names of forms and in ids of URLs.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The value for the database."""
        return None if value is None else value.replace("\0", "\ufffd")


def count_rows(engine: Engine, *where: ColumnElement[bool]) -> int:
    """How many rows match."""
    with Session(engine) as session:
        return session.scalar(select(func.count()).where(*where)) or 0


def following(
    session: Session,
    statement: Statement,
    kind: type[Any],
    keys: Sequence[InstrumentedAttribute[Any]],
    after: str | None,
    *,
    descending: bool = True,
) -> Statement:
    """The statement in the order of `keys`, starting after the row with the id `after`.

    Raises:
        InvalidRequest: there is no such row.
    """
    if after is not None:
        last = session.get(kind, after)
        if last is None:
            raise InvalidRequest(f"no item {after[:100]!r} to go on after", "after")
        place = tuple_(*(getattr(last, key.key) for key in keys))
        statement = statement.where(tuple_(*keys) < place if descending else tuple_(*keys) > place)
    return statement.order_by(*(key.desc() if descending else key.asc() for key in keys))


def migrate(engine: Engine) -> None:
    """Bring these tables to the newest version."""
    migrate_package(engine, Path(__file__).with_name("migrations") / "versions", "server_version")
