"""The registry: which name stands for which weights. It is kept in the database, the files in the store.

A version is an adapter under its own name and never changes. An alias is a name that points at versions and can be
moved: to another one, or to several by weight.
"""

import hashlib
import math
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import JSON, BigInteger, Boolean, Engine, Integer, String, delete, func, inspect, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from adapters import names
from adapters.base import BaseModel
from adapters.database import migrate
from adapters.errors import AdapterInUse, AdapterNotFound, InvalidAlias, NameTaken, TooManyAdapters
from adapters.files import foreign, full, validate
from adapters.store import Store

MAX_WEIGHT = 1_000_000


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
    pinned: Mapped[bool] = mapped_column(Boolean, default=False)


class _AliasRow(_Base):
    __tablename__ = "aliases"

    name: Mapped[str] = mapped_column(String(256), primary_key=True)
    base_model: Mapped[str] = mapped_column(String(256))
    weights: Mapped[dict[str, int]] = mapped_column(JSON)
    previous: Mapped[dict[str, int] | None] = mapped_column(JSON)
    owned_by: Mapped[str] = mapped_column(String(256))
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger)


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
    pinned: bool
    path: Path

    @property
    def full(self) -> bool:
        """Whether it is a full model, which needs an engine of its own."""
        return self.rank == 0


@dataclass(frozen=True)
class Alias:
    """A name that points at versions.

    Attributes:
        weights: version's name -> its share of the requests, relative to the other versions.
        previous: where it pointed before; None at first.
        created_at, updated_at: Unix seconds.
    """

    name: str
    weights: dict[str, int]
    previous: dict[str, int] | None
    owned_by: str
    created_at: int
    updated_at: int

    def pick(self, user: str | None) -> str:
        """The version that answers `user`, always the same one; without a user, a random one by weight.

        Weighted rendezvous hashing (Thaler and Ravishankar 1998): when weights change, as few users as possible get
        another version.
        """
        caller = user or secrets.token_hex(8)

        def score(version: str) -> float:
            digest = hashlib.sha256(f"{self.name}\0{version}\0{caller}".encode("utf-8", "surrogatepass")).digest()
            uniform = (int.from_bytes(digest[:8]) + 0.5) / 2**64
            return -self.weights[version] / math.log(uniform)

        return max((version for version, weight in self.weights.items() if weight), key=score)


class Registry:
    """Validated adapters and aliases by name, for one base model."""

    def __init__(self, engine: Engine, store: Store, base: BaseModel, limits: validate.Limits) -> None:
        self.store = store
        self.base = base
        self.limits = limits
        self._engine = engine
        self._writing = threading.Lock()  # held from checking the names until the change is written
        migrate(engine, Path(__file__).with_name("migrations") / "versions", "adapters_version")
        for digest in store.unsettled():
            self._remove_unnamed(digest)
            store.settle(digest)

    def register(self, name: str, source: Path, *, owned_by: str, within: Sequence[Path] = ()) -> Adapter:
        """Validate the files in folder `source`, store them and name them.

        Registering the same weights under the same name again changes nothing, but repairs damaged files.

        Args:
            within: folders into which links among the files may lead.

        Raises:
            InvalidName: `name` cannot be registered.
            InvalidAdapter: the files must not be served.
            NameTaken: `name` stands for other weights, or is an alias.
            TooManyAdapters: the limit is reached.
        """
        names.check(name)
        self._check_room(name)
        with self.store.staging() as staged:
            self.store.copy_in(source, staged, self.limits.max_bytes, full.largest(self.base), within)
            foreign.adopt(staged, self.base)
            info = validate.check(staged, self.base, self.limits)
            digest = self.store.seal(staged)
            with self._writing, Session(self._engine, expire_on_commit=False) as session:
                row = session.get(_AdapterRow, name)
                if row is not None and row.digest != digest:
                    raise NameTaken(
                        f"{name!r} is registered for other weights; choose another name, or delete it first"
                    )
                if row is None and session.get(_AliasRow, name) is not None:
                    raise NameTaken(f"{name!r} is an alias; choose another name, or delete the alias first")
                self.store.unsettle(digest)
                self.store.publish(staged, digest)
                if row is None:
                    row = _AdapterRow(
                        name=name,
                        digest=digest,
                        base_model=self.base.name,
                        rank=info.rank,
                        bytes=info.bytes,
                        owned_by=owned_by,
                        created_at=int(time.time()),
                        pinned=False,
                    )
                    session.add(row)
                    session.commit()
                self.store.settle(digest)
        return self._adapter(row)

    def get(self, name: str) -> Adapter:
        """The adapter of that name.

        Raises:
            AdapterNotFound: there is none for this base model.
        """
        with Session(self._engine) as session:
            return self._adapter(self._row(session, name))

    def list(self) -> list[Adapter]:
        """All adapters of this base model, oldest first."""
        statement = select(_AdapterRow).where(_AdapterRow.base_model == self.base.name)
        with Session(self._engine) as session:
            rows = session.scalars(statement.order_by(_AdapterRow.created_at, _AdapterRow.name))
            return [self._adapter(row) for row in rows]

    def named(self, digest: str) -> "list[Adapter]":
        """The adapters that stand for these weights, of any base model."""
        with Session(self._engine) as session:
            return [
                self._adapter(row) for row in session.scalars(select(_AdapterRow).where(_AdapterRow.digest == digest))
            ]

    def pinned(self) -> "list[Adapter]":
        """The pinned adapters of this base model."""
        with Session(self._engine) as session:
            rows = session.scalars(
                select(_AdapterRow).where(_AdapterRow.base_model == self.base.name, _AdapterRow.pinned)
            )
            return [self._adapter(row) for row in rows]

    def pin(self, name: str, pinned: bool) -> Adapter:
        """Record whether the adapter is to stay in the engine's memory.

        Raises:
            AdapterNotFound: there is none of that name.
        """
        with self._writing, Session(self._engine, expire_on_commit=False) as session:
            row = self._row(session, name)
            session.execute(update(_AdapterRow).where(_AdapterRow.name == name).values(pinned=pinned))
            session.commit()
            session.refresh(row)
            return self._adapter(row)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove the name, and its files if no other name stands for them.

        Args:
            force: remove it from aliases that point at it; an alias left without a version is removed too.

        Raises:
            AdapterNotFound: there is no such adapter.
            AdapterInUse: an alias points at it.
        """
        with self._writing:
            self.check_unaliased(name, force=force)
            with Session(self._engine) as session:
                row = self._row(session, name)
                digest = row.digest
                for alias in session.scalars(select(_AliasRow)).all():
                    if name not in alias.weights:
                        continue
                    left = {version: weight for version, weight in alias.weights.items() if version != name}
                    if any(left.values()):
                        alias.weights, alias.previous = left, None
                    else:
                        session.delete(alias)
                self.store.unsettle(digest)
                session.delete(row)
                session.commit()
            self._remove_unnamed(digest)
            self.store.settle(digest)

    def check_unaliased(self, name: str, *, force: bool = False) -> None:
        """Raise AdapterInUse if an alias points at the adapter, unless `force` is given."""
        for alias in self.aliases():
            if name in alias.weights and not force:
                raise AdapterInUse(f"alias {alias.name!r} points at {name!r}; move it first, or use force")

    def set_alias(self, name: str, weights: Mapping[str, int], *, owned_by: str) -> Alias:
        """Make an alias, or move it.

        Args:
            weights: registered version -> share; for alias `ft:acme`, `v1` is short for `ft:acme:v1`, as in
                `{"v1": 90, "v2": 10}`.

        Raises:
            InvalidName: `name` cannot be a name.
            NameTaken: `name` is an adapter.
            InvalidAlias: no version has a share, or a share is out of bounds.
            AdapterNotFound: a version is not registered.
        """
        names.check(name)
        if not any(weights.values()):
            raise InvalidAlias(f"alias {name!r} needs at least one version with a weight above 0")
        for version, weight in weights.items():
            if not 0 <= weight <= MAX_WEIGHT:
                raise InvalidAlias(f"weight of {version!r} is {weight}; expected 0 to {MAX_WEIGHT}")
        now = int(time.time())
        with self._writing, Session(self._engine, expire_on_commit=False) as session:
            if session.get(_AdapterRow, name) is not None:
                raise NameTaken(f"{name!r} is an adapter; an alias needs a name of its own")
            resolved: dict[str, int] = {}
            for version, weight in weights.items():
                version_name = version if version.startswith("ft:") else f"{name}:{version}"
                resolved[self._row(session, version_name).name] = weight
            row = session.get(_AliasRow, name)
            if row is None:
                row = _AliasRow(name=name, base_model=self.base.name, previous=None, owned_by=owned_by, created_at=now)
                session.add(row)
            elif row.weights != resolved:
                row.previous = row.weights
            row.weights, row.updated_at = resolved, now
            session.commit()
            return _alias(row)

    def alias(self, name: str) -> Alias:
        """The alias of that name.

        Raises:
            AdapterNotFound: there is none for this base model.
        """
        with Session(self._engine) as session:
            row = session.get(_AliasRow, name) if names.is_name(name) else None
            if row is None or row.base_model != self.base.name:
                raise AdapterNotFound(name)
            return _alias(row)

    def aliases(self) -> "list[Alias]":
        """All aliases of this base model, oldest first."""
        statement = select(_AliasRow).where(_AliasRow.base_model == self.base.name)
        with Session(self._engine) as session:
            return [_alias(row) for row in session.scalars(statement.order_by(_AliasRow.created_at, _AliasRow.name))]

    def remove_alias(self, name: str) -> None:
        """Remove an alias; its versions stay.

        Raises:
            AdapterNotFound: there is none of that name.
        """
        with self._writing, Session(self._engine) as session, session.begin():
            self.alias(name)
            session.execute(delete(_AliasRow).where(_AliasRow.name == name))

    def _check_room(self, name: str) -> None:
        with Session(self._engine) as session:
            count = session.scalar(select(func.count()).select_from(_AdapterRow)) or 0
            if count >= self.limits.max_adapters and session.get(_AdapterRow, name) is None:
                raise TooManyAdapters(
                    f"{count} adapters are registered, as many as max_adapters allows; delete some, or raise it"
                )

    def _row(self, session: Session, name: str) -> _AdapterRow:
        row = session.get(_AdapterRow, name) if names.is_name(name) else None
        if row is None or row.base_model != self.base.name:
            raise AdapterNotFound(name)
        return row

    def _remove_unnamed(self, digest: str) -> None:
        if not self.named(digest):
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
            row.pinned,
            self.store.path(row.digest),
        )


def locate(engine: Engine, root: Path, name: str) -> Path:
    """Folder of a registered version's files; a server may be running meanwhile.

    Args:
        root: the store's folder.

    Raises:
        AdapterNotFound: no version has that name.
    """
    if not inspect(engine).has_table(_AdapterRow.__tablename__):
        raise AdapterNotFound(name)
    with Session(engine) as session:
        row = session.get(_AdapterRow, name)
    if row is None:
        raise AdapterNotFound(name)
    return root.absolute() / row.digest


def _alias(row: _AliasRow) -> Alias:
    return Alias(row.name, dict(row.weights), row.previous, row.owned_by, row.created_at, row.updated_at)
