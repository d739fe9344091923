"""The registry: which name stands for which weights. It survives restarts; the files are the store's."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import BigInteger, Engine, Integer, String, delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from adapters import names, validate
from adapters.base import BaseModel
from adapters.database import migrate
from adapters.errors import AdapterNotFound, NameTaken
from adapters.store import Store


class _Base(DeclarativeBase):
    pass


class _AdapterRow(_Base):
    __tablename__ = "adapters"

    name: Mapped[str] = mapped_column(String(256), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    base_model: Mapped[str] = mapped_column(String(256))
    rank: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int] = mapped_column(BigInteger)
    owned_by: Mapped[str] = mapped_column(String(256))
    created_at: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True)
class Adapter:
    """A registered adapter; `path` is its folder in the store, `created_at` Unix seconds."""

    name: str
    digest: str
    base_model: str
    rank: int
    bytes: int
    owned_by: str
    created_at: int
    path: Path


class Registry:
    """Validated adapters by name, for one base model."""

    def __init__(self, engine: Engine, store: Store, base: BaseModel, limits: validate.Limits) -> None:
        self.store = store
        self.base = base
        self.limits = limits
        self._engine = engine
        self._writing = threading.Lock()  # between the last look at a digest's names and the removal of its files
        migrate(engine, Path(__file__).with_name("migrations") / "versions", "adapters_version")

    def register(self, name: str, source: Path, *, owned_by: str) -> Adapter:
        """Validate the files in folder `source`, store them and name them.

        Registering the same weights under the same name again changes nothing.

        Raises:
            InvalidName: `name` cannot be registered.
            InvalidAdapter: the files must not be served.
            NameTaken: `name` stands for other weights.
        """
        names.check(name)
        with self.store.staging() as staged:
            self.store.copy_in(source, staged, self.limits.max_bytes)
            info = validate.check(staged, self.base, self.limits)
            with self._writing:
                digest = self.store.commit(staged)
                row = _AdapterRow(
                    name=name,
                    digest=digest,
                    base_model=self.base.name,
                    rank=info.rank,
                    bytes=info.bytes,
                    owned_by=owned_by,
                    created_at=int(time.time()),
                )
                try:
                    with Session(self._engine, expire_on_commit=False) as session, session.begin():
                        session.add(row)
                except IntegrityError:
                    existing = self.get(name)
                    if existing.digest != digest:
                        self._remove_unnamed(digest)
                        raise NameTaken(
                            f"{name!r} is registered for other weights; choose another name, or delete it first"
                        ) from None
                    return existing
        return self._adapter(row)

    def get(self, name: str) -> Adapter:
        """The adapter of that name.

        Raises:
            AdapterNotFound: there is none for this base model.
        """
        with Session(self._engine) as session:
            row = session.get(_AdapterRow, name)
            if row is None or row.base_model != self.base.name:
                raise AdapterNotFound(name)
            return self._adapter(row)

    def list(self) -> list[Adapter]:
        """All adapters of this base model, oldest first."""
        statement = select(_AdapterRow).where(_AdapterRow.base_model == self.base.name)
        with Session(self._engine) as session:
            rows = session.scalars(statement.order_by(_AdapterRow.created_at, _AdapterRow.name))
            return [self._adapter(row) for row in rows]

    def remove(self, name: str) -> None:
        """Forget the name, and delete its files when no other name stands for them.

        Raises:
            AdapterNotFound: there is no such adapter.
        """
        with self._writing:
            adapter = self.get(name)
            with Session(self._engine) as session, session.begin():
                session.execute(delete(_AdapterRow).where(_AdapterRow.name == name))
            self._remove_unnamed(adapter.digest)

    def _remove_unnamed(self, digest: str) -> None:
        statement = select(func.count()).where(_AdapterRow.digest == digest)
        with Session(self._engine) as session:
            if session.scalar(statement) == 0:
                self.store.remove(digest)

    def _adapter(self, row: _AdapterRow) -> Adapter:
        return Adapter(
            row.name,
            row.digest,
            row.base_model,
            row.rank,
            row.bytes,
            row.owned_by,
            row.created_at,
            self.store.path(row.digest),
        )
