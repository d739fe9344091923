"""Rows of the server's own tables; adapters/registry.py owns the adapters'."""

from pathlib import Path
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Dialect, Engine, Integer, String, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

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


class KeyRow(Base):
    """An API key; only its hash is kept."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(Written(64), primary_key=True)
    name: Mapped[str] = mapped_column(Written(256))
    hash: Mapped[str] = mapped_column(Written(64), unique=True)
    hint: Mapped[str] = mapped_column(Written(32))
    admin: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[int] = mapped_column(BigInteger)


class FileRow(Base):
    """An uploaded or produced file; its bytes lie in the data folder under its id."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(Written(64), primary_key=True)
    filename: Mapped[str] = mapped_column(Written())
    purpose: Mapped[str] = mapped_column(Written(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)


class UploadRow(Base):
    """A file that comes in parts; they lie in the data folder under the upload's id until it is completed."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(Written(64), primary_key=True)
    filename: Mapped[str] = mapped_column(Written())
    purpose: Mapped[str] = mapped_column(Written(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(Written(16))
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    file_expires_after: Mapped[int | None] = mapped_column(BigInteger)
    file_id: Mapped[str | None] = mapped_column(Written(64))


class PermissionRow(Base):
    """A checkpoint released to a project."""

    __tablename__ = "checkpoint_permissions"
    __table_args__ = (UniqueConstraint("checkpoint", "project_id"),)

    id: Mapped[str] = mapped_column(Written(64), primary_key=True)
    checkpoint: Mapped[str] = mapped_column(Written(256), index=True)
    project_id: Mapped[str] = mapped_column(Written(64))
    created_at: Mapped[int] = mapped_column(BigInteger)


class JobRow(Base):
    """A fine-tuning job; its records lie in its directory."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Written(64), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, unique=True)
    status: Mapped[str] = mapped_column(Written(32), index=True)
    model: Mapped[str] = mapped_column(Written(256))
    parent: Mapped[str | None] = mapped_column(Written(256))
    training_file: Mapped[str] = mapped_column(Written(64))
    validation_file: Mapped[str | None] = mapped_column(Written(64))
    retention_file: Mapped[str | None] = mapped_column(Written(64))
    result_name: Mapped[str] = mapped_column(Written(256))
    seed: Mapped[int] = mapped_column(BigInteger)
    hyperparameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    method: Mapped[dict[str, Any]] = mapped_column(JSON)
    gate: Mapped[dict[str, Any]] = mapped_column(JSON)
    accept_findings: Mapped[bool] = mapped_column(Boolean)
    integrations: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    labels: Mapped[dict[str, str] | None] = mapped_column(JSON)
    created_at: Mapped[int] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)
    fine_tuned_model: Mapped[str | None] = mapped_column(Written(256))
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    result_file: Mapped[str | None] = mapped_column(Written(64))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class ResponseRow(Base):
    """A response that is kept; `items` are those it answered."""

    __tablename__ = "responses"

    id: Mapped[str] = mapped_column(Written(64), primary_key=True)
    previous_id: Mapped[str | None] = mapped_column(Written(64))
    created_at: Mapped[int] = mapped_column(BigInteger, index=True)
    items: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)


class BatchRow(Base):
    """A batch; `times` has a `<status>_at` for each status it has had, in Unix seconds."""

    __tablename__ = "batches"

    id: Mapped[str] = mapped_column(Written(64), primary_key=True)
    endpoint: Mapped[str] = mapped_column(Written(64))
    input_file: Mapped[str] = mapped_column(Written(64))
    status: Mapped[str] = mapped_column(Written(16), index=True)
    labels: Mapped[dict[str, str] | None] = mapped_column(JSON)
    output_expires_after: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    times: Mapped[dict[str, int]] = mapped_column(JSON)
    total: Mapped[int] = mapped_column(Integer)
    completed: Mapped[int] = mapped_column(Integer)
    failed: Mapped[int] = mapped_column(Integer)
    errors: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON)
    output_file: Mapped[str | None] = mapped_column(Written(64))
    error_file: Mapped[str | None] = mapped_column(Written(64))


def migrate(engine: Engine) -> None:
    """Bring these tables to the newest version."""
    migrate_package(engine, Path(__file__).with_name("migrations") / "versions", "server_version")
