"""Rows of fine-tuning jobs, and the allowed changes of their status."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Engine, Integer, delete, func, insert, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from server.errors import InvalidRequest, NotFound
from server.state.status import ACTIVE, ENDED, Status
from server.state.tables import Base, Written, again_on_conflict, count_rows, following
from training.directory import JobDirectory
from training.job import Gate, Method

LINGER_SECONDS = 3600  # an ended job keeps its directory at least this long, as its trainer may still be ending


class JobRow(Base):
    """A fine-tuning job; its events, metrics and results are in its directory."""

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


@dataclass(frozen=True)
class NewJob:
    """A checked request for a job.

    Attributes:
        retention_file: questions that the result must still answer; named in the request's metadata.
        accept_findings: train even if the data report has errors that may be accepted.
        integrations: OpenAI's, at most one.
        labels: OpenAI's `metadata`.
    """

    model: str
    training_file: str
    method: Method
    seed: int
    gate: Gate = field(default_factory=Gate)
    validation_file: str | None = None
    retention_file: str | None = None
    accept_findings: bool = False
    integrations: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, str] | None = None

    def files(self) -> dict[str, str]:
        """The ids of the files that the job needs, by the request's field."""
        named = {
            "training_file": self.training_file,
            "validation_file": self.validation_file,
            "metadata.retention_file": self.retention_file,
        }
        return {param: file_id for param, file_id in named.items() if file_id is not None}


class Jobs:
    """Jobs in the database; each has a directory under `root`."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self._engine = engine
        self._root = root

    def directory(self, job_id: str) -> JobDirectory:
        """The job's directory; it may not exist yet."""
        return JobDirectory(self._root / job_id)

    def create(self, job_id: str, job: NewJob, parent: str | None, result_name: str) -> JobRow:
        """Queue a job.

        Args:
            parent: the adapter that it continues to train; None for the base.
            result_name: name of its result.
        """
        values: dict[str, Any] = {
            "id": job_id,
            "status": Status.QUEUED,
            "model": job.model,
            "parent": parent,
            "training_file": job.training_file,
            "validation_file": job.validation_file,
            "retention_file": job.retention_file,
            "result_name": result_name,
            "seed": job.seed,
            "hyperparameters": job.method.hyperparameters.model_dump(),
            "method": job.method.model_dump(),
            "gate": job.gate.model_dump(),
            "accept_findings": job.accept_findings,
            "integrations": job.integrations,
            "labels": job.labels,
            "created_at": int(time.time()),
        }
        self._insert(values)
        return self.get(job_id)

    @again_on_conflict
    def _insert(self, values: dict[str, Any]) -> None:
        """Store a row under the next number; if two transactions take the same number, the later one tries again."""
        number = select(func.coalesce(func.max(JobRow.number), 0) + 1).scalar_subquery()
        with Session(self._engine) as session, session.begin():
            session.execute(insert(JobRow).values(number=number, **values))

    def get(self, job_id: str) -> JobRow:
        """The job of that id.

        Raises:
            NotFound: there is none.
        """
        with Session(self._engine) as session:
            row = session.get(JobRow, job_id)
        if row is None:
            raise NotFound(f"Could not find fine tune: {job_id}")
        return row

    def newest(self, fits: Callable[[dict[str, str] | None], bool], after: str | None, limit: int) -> list[JobRow]:
        """At most `limit` jobs whose labels fit, newest first, that follow the one with the id `after`.

        Raises:
            InvalidRequest: there is no such job.
        """
        with Session(self._engine) as session:
            marks = following(session, select(JobRow.id, JobRow.labels), JobRow, (JobRow.number,), after)
            found = session.execute(marks.execution_options(yield_per=100))
            ids = [*islice((job_id for job_id, labels in found if fits(labels)), limit)]
            return [*session.scalars(select(JobRow).where(JobRow.id.in_(ids)).order_by(JobRow.number.desc()))]

    def with_status(self, *statuses: Status) -> list[JobRow]:
        """Jobs of these statuses, oldest first."""
        statement = select(JobRow).where(JobRow.status.in_(statuses)).order_by(JobRow.number)
        with Session(self._engine) as session:
            return list(session.scalars(statement))

    def unfinished(self) -> int:
        """How many jobs wait, run or are paused."""
        return count_rows(self._engine, JobRow.status.not_in(ENDED))

    def uses_file(self, file_id: str) -> bool:
        """Whether a job that has not ended needs the file."""
        named = (JobRow.training_file, JobRow.validation_file, JobRow.retention_file)
        statement = select(JobRow.id).where(JobRow.status.not_in(ENDED), or_(*(one == file_id for one in named)))
        with Session(self._engine) as session:
            return session.scalars(statement.limit(1)).first() is not None

    def delete_surplus(self, kept: int) -> None:
        """Delete failed and cancelled jobs beyond the newest `kept`, and their directories, after LINGER_SECONDS."""
        ended = select(JobRow.id).where(
            JobRow.status.in_((Status.FAILED, Status.CANCELLED)), JobRow.finished_at < time.time() - LINGER_SECONDS
        )
        with Session(self._engine) as session, session.begin():
            surplus = list(session.scalars(ended.order_by(JobRow.number.desc()).offset(kept).limit(1000)))
            for job_id in surplus:
                shutil.rmtree(self.directory(job_id).path, ignore_errors=True)
            session.execute(delete(JobRow).where(JobRow.id.in_(surplus)))

    def advance(self, job_id: str, status: Status, *, only_from: tuple[Status, ...] = (), **fields: Any) -> bool:
        """Set status and fields of a job, and return True, unless it has ended: a cancelled job stays cancelled.

        Args:
            only_from: statuses from which the change is allowed; empty: all that are not an end.
        """
        if status in ENDED:
            fields["finished_at"] = int(time.time())
        fits = JobRow.status.in_(only_from) if only_from else JobRow.status.not_in(ENDED)
        statement = update(JobRow).where(JobRow.id == job_id, fits)
        with Session(self._engine) as session, session.begin():
            return bool(session.execute(statement.values(status=status, **fields)).rowcount)  # pyright: ignore

    def cancel(self, job_id: str) -> JobRow:
        """Mark a job cancelled.

        Raises:
            NotFound: there is none of that id.
            InvalidRequest: it has ended.
        """
        if not self.advance(self.get(job_id).id, Status.CANCELLED):
            raise InvalidRequest(f"Job has already ended: {job_id} is {self.get(job_id).status}")
        return self.get(job_id)

    def pause(self, job_id: str) -> JobRow:
        """Mark a job paused.

        Raises:
            NotFound: there is none of that id.
            InvalidRequest: it has ended, or is paused already.
        """
        if not self.advance(self.get(job_id).id, Status.PAUSED, only_from=(Status.QUEUED, *ACTIVE)):
            raise InvalidRequest(f"{job_id} is {self.get(job_id).status}; only a job that waits or runs can be paused")
        return self.get(job_id)

    def resume(self, job_id: str) -> JobRow:
        """Queue a paused job again.

        Raises:
            NotFound: there is none of that id.
            InvalidRequest: it is not paused.
        """
        if not self.advance(self.get(job_id).id, Status.QUEUED, only_from=(Status.PAUSED,)):
            raise InvalidRequest(f"{job_id} is {self.get(job_id).status}; only a paused job can be resumed")
        return self.get(job_id)
