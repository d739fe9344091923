"""API keys: an admin key and user keys. A secret is shown once and kept as its SHA-256.

A fast hash is safe here: a secret is 256 random bits, which cannot be guessed by trying.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import BigInteger, Boolean, Engine, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from server.errors import InvalidRequest, NotFound
from server.state.ids import random_id
from server.state.tables import Base, Written

CACHE_SECONDS = 5.0  # a key that another process revokes keeps working this long
CACHE_KEYS = 10_000
SETTINGS_KEY = "admin_key of the settings"


class KeyRow(Base):
    """An API key; only its hash is kept."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(Written(64), primary_key=True)
    name: Mapped[str] = mapped_column(Written(256))
    hash: Mapped[str] = mapped_column(Written(64), unique=True)
    hint: Mapped[str] = mapped_column(Written(32))
    admin: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True)
class Key:
    """A key without its secret; `hint` is its last four characters, `created_at` Unix seconds."""

    id: str
    name: str
    hint: str
    admin: bool
    created_at: int


class Keys:
    """The keys in the database; safe to use from several processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cache: dict[str, tuple[float, Key]] = {}

    def create(self, name: str, *, admin: bool = False, secret: str | None = None) -> tuple[Key, str]:
        """Make a key; return it with its secret, which is not stored."""
        secret = secret or f"sk-tuneport-{secrets.token_urlsafe(32)}"
        row = KeyRow(
            id=random_id("key_"),
            name=name,
            hash=_hash(secret),
            hint=secret[-4:],
            admin=admin,
            created_at=int(time.time()),
        )
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            session.add(row)
        return _key(row), secret

    def ensure_admin(self, secret: str | None) -> str | None:
        """Ensure that there is an admin key, and that `secret`, if given, is one; return the secret of a key made here.

        A secret that was given at an earlier start is revoked, even if none is given now.

        Raises:
            InvalidRequest: the secret belongs to a user key.
        """
        known = self.check(secret) if secret is not None else None
        if known is not None and not known.admin:
            raise InvalidRequest(f"admin_key is the secret of the user key {known.name!r}; choose another")
        given = _hash(secret) if secret is not None else ""
        with Session(self._engine) as session, session.begin():
            session.execute(delete(KeyRow).where(KeyRow.name == SETTINGS_KEY, KeyRow.hash != given))
        self._cache.clear()
        if secret is not None:
            if known is None:
                self.create(SETTINGS_KEY, admin=True, secret=secret)
            return None
        with Session(self._engine) as session:
            if session.scalar(select(func.count()).where(KeyRow.admin)):
                return None
        return self.create("admin", admin=True)[1]

    def recent(self, secret: str) -> Key | None:
        """The key of that secret if it was looked up within CACHE_SECONDS; does not ask the database."""
        expires, key = self._cache.get(_hash(secret), (0.0, None))
        return key if expires > time.monotonic() else None

    def check(self, secret: str) -> Key | None:
        """The key of that secret, or None."""
        digest = _hash(secret)
        with Session(self._engine) as session:
            row = session.scalar(select(KeyRow).where(KeyRow.hash == digest))
        if row is None:
            self._cache.pop(digest, None)
            return None
        if len(self._cache) >= CACHE_KEYS:
            self._cache.clear()
        key = _key(row)
        self._cache[digest] = (time.monotonic() + CACHE_SECONDS, key)
        return key

    def list(self) -> list[Key]:
        """All keys, oldest first."""
        with Session(self._engine) as session:
            return [_key(row) for row in session.scalars(select(KeyRow).order_by(KeyRow.created_at))]

    def revoke(self, key_id: str) -> None:
        """Delete a key.

        Raises:
            NotFound: there is none of that id.
            InvalidRequest: it is the last admin key.
        """
        with Session(self._engine) as session, session.begin():
            row = session.get(KeyRow, key_id)
            if row is None:
                raise NotFound(f"no key {key_id!r}")
            if row.admin and session.scalar(select(func.count()).where(KeyRow.admin)) == 1:
                raise InvalidRequest("this is the last admin key; make another before you revoke it")
            session.execute(delete(KeyRow).where(KeyRow.id == key_id))
        self._cache.clear()


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _key(row: KeyRow) -> Key:
    return Key(row.id, row.name, row.hint, row.admin, row.created_at)
