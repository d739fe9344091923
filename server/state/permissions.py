"""Records of the projects to which a checkpoint is released."""

import time
from dataclasses import dataclass

from sqlalchemy import BigInteger, Engine, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from server.errors import NotFound
from server.state.ids import random_id
from server.state.tables import Base, Written, again_on_conflict


class PermissionRow(Base):
    """A checkpoint released to a project."""

    __tablename__ = "checkpoint_permissions"
    __table_args__ = (UniqueConstraint("checkpoint", "project_id"),)

    id: Mapped[str] = mapped_column(Written(64), primary_key=True)
    checkpoint: Mapped[str] = mapped_column(Written(256), index=True)
    project_id: Mapped[str] = mapped_column(Written(64))
    created_at: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True)
class Permission:
    """A permission; `created_at` in Unix seconds."""

    id: str
    project_id: str
    created_at: int


class Permissions:
    """Permissions in the database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @again_on_conflict
    def allow(self, checkpoint: str, project_id: str) -> Permission:
        """Return the permission; make it if there is none."""
        with Session(self._engine) as session, session.begin():
            statement = select(PermissionRow).where(
                PermissionRow.checkpoint == checkpoint, PermissionRow.project_id == project_id
            )
            row = session.scalars(statement).first()
            if row is None:
                row = PermissionRow(
                    id=random_id("cp_"), checkpoint=checkpoint, project_id=project_id, created_at=int(time.time())
                )
                session.add(row)
            return Permission(row.id, row.project_id, row.created_at)

    def list(self, checkpoint: str, project_id: str | None = None) -> list[Permission]:
        """The permissions of a checkpoint, oldest first."""
        statement = select(PermissionRow).where(PermissionRow.checkpoint == checkpoint)
        if project_id is not None:
            statement = statement.where(PermissionRow.project_id == project_id)
        with Session(self._engine) as session:
            rows = session.scalars(statement.order_by(PermissionRow.created_at, PermissionRow.id))
            return [Permission(row.id, row.project_id, row.created_at) for row in rows]

    def withdraw(self, checkpoint: str, permission_id: str) -> None:
        """Delete a permission.

        Raises:
            NotFound: the checkpoint has none of that id.
        """
        with Session(self._engine) as session, session.begin():
            row = session.get(PermissionRow, permission_id)
            if row is None or row.checkpoint != checkpoint:
                raise NotFound(f"No such permission: {permission_id}")
            session.delete(row)
