"""Batches: a row each; the lines answered so far lie in the data folder until the batch ends."""

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Engine, Integer, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from server.errors import InvalidRequest, NotFound, RateLimited
from server.state.ids import random_id
from server.state.tables import Base, Written, count_rows, following

LIFETIME_SECONDS = 24 * 3600  # OpenAI's only completion window


class BatchStatus(StrEnum):
    """validating -> in_progress -> finalizing, or cancelling -> an end; OpenAI's words."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


ENDED = (BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED)


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


@dataclass(frozen=True)
class Counts:
    """Lines of a batch: all, and those answered with and without success."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class Batches:
    """Batches in the database."""

    def __init__(self, engine: Engine, max_waiting: int | None = None) -> None:
        """Make one.

        Args:
            max_waiting: limit on batches that wait or run.
        """
        self._engine = engine
        self._max_waiting = max_waiting

    def create(
        self, input_file: str, endpoint: str, labels: dict[str, str] | None, output_expires_after: int | None
    ) -> BatchRow:
        """Queue a batch.

        Raises:
            RateLimited: `max_waiting` batches have not ended.
        """
        now = int(time.time())
        waiting = count_rows(self._engine, BatchRow.status.not_in(ENDED))
        if self._max_waiting is not None and waiting >= self._max_waiting:
            raise RateLimited(
                f"{waiting} batches wait or run already (max_waiting_batches); cancel one, or wait for its end",
                "requests",
            )
        row = BatchRow(
            id=random_id("batch_", 32),
            endpoint=endpoint,
            input_file=input_file,
            status=BatchStatus.VALIDATING,
            labels=labels,
            output_expires_after=output_expires_after,
            created_at=now,
            expires_at=now + LIFETIME_SECONDS,
            times={},
            total=0,
            completed=0,
            failed=0,
        )
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            session.add(row)
        return row

    def get(self, batch_id: str) -> BatchRow:
        """The batch of that id.

        Raises:
            NotFound: there is none.
        """
        with Session(self._engine) as session:
            row = session.get(BatchRow, batch_id)
            if row is None:
                raise NotFound(f"No such Batch object: {batch_id}")
            return row

    def list(self, after: str | None, limit: int) -> list[BatchRow]:
        """At most `limit` batches, newest first, that follow the one with the id `after`.

        Raises:
            InvalidRequest: there is no such batch.
        """
        with Session(self._engine) as session:
            keys = (BatchRow.created_at, BatchRow.id)
            return list(session.scalars(following(session, select(BatchRow), BatchRow, keys, after).limit(limit)))

    def next(self) -> BatchRow | None:
        """The oldest batch that has not ended."""
        statement = select(BatchRow).where(BatchRow.status.not_in(ENDED)).order_by(BatchRow.created_at, BatchRow.id)
        with Session(self._engine) as session:
            return session.scalars(statement.limit(1)).first()

    def uses_file(self, file_id: str) -> bool:
        """Whether a batch that has not ended reads the file."""
        statement = select(BatchRow.id).where(BatchRow.status.not_in(ENDED), BatchRow.input_file == file_id)
        with Session(self._engine) as session:
            return session.scalars(statement.limit(1)).first() is not None

    def cancel(self, batch_id: str) -> BatchRow:
        """End a batch with the answers that it has so far.

        Raises:
            NotFound: there is none of that id.
            InvalidRequest: it has ended.
        """
        row = self.get(batch_id)
        if row.status in ENDED or not self.move(batch_id, BatchStatus.CANCELLING, unless=ENDED):
            raise InvalidRequest(f"Cannot cancel a batch with status '{row.status}'.")
        return self.get(batch_id)

    def move(self, batch_id: str, status: BatchStatus, *, unless: tuple[BatchStatus, ...] = (), **values: Any) -> bool:
        """Set a batch's status and values, and note the time; return False if its status is one of `unless`."""
        with Session(self._engine) as session, session.begin():
            row = session.get_one(BatchRow, batch_id)
            if row.status in unless:
                return False
            times = {**row.times, f"{status}_at": int(time.time())}
            session.execute(
                update(BatchRow).where(BatchRow.id == batch_id).values(status=status, times=times, **values)
            )
            return True

    def count(self, batch_id: str, counts: Counts) -> None:
        """Record how many lines of a batch are done."""
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(BatchRow)
                .where(BatchRow.id == batch_id)
                .values(total=counts.total, completed=counts.completed, failed=counts.failed)
            )
