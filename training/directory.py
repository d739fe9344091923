"""A job's directory: it holds the job's description, records and outcome.

In: `job.json`. Out: `events.jsonl`, `metrics.jsonl`, `data_report.json`, `checkpoints/`, then either `result.json` with
`adapter/`, `evaluation.json` and the report, or `failure.json`. The process that holds the lock runs the job. A kill
loses at most the steps since the last checkpoint.
"""

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from training.job import Failure, Result, TrainingJob

TRAINER = (sys.executable, "-P", "-m", "training")  # the argument is a job's description


class JobDirectory:
    """Paths and records of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.description = path / "job.json"
        self.events_file = path / "events.jsonl"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.adapter = path / "adapter"
        self.data_report = path / "data_report.json"
        self.evaluation = path / "evaluation.json"
        self.report_html = path / "report.html"
        self.report_markdown = path / "report.md"
        self.log_file = path / "trainer.log"
        self._result = path / "result.json"
        self._failure = path / "failure.json"
        self._lock = path / "lock"

    @classmethod
    def create(cls, path: Path, job: TrainingJob) -> "JobDirectory":
        """Make the directory, or open it again after a crash; the description is only written once."""
        path.mkdir(parents=True, exist_ok=True)
        directory = cls(path)
        if not directory.description.exists():
            write_atomically(directory.description, job)
        return directory

    def job(self) -> TrainingJob:
        """The job's description."""
        return TrainingJob.model_validate_json(self.description.read_bytes())

    def event(
        self,
        message: str,
        *,
        level: Literal["info", "warn", "error"] = "info",
        type: Literal["message", "metrics"] = "message",
        data: dict[str, Any] | None = None,
    ) -> None:
        """Append an event. Server and trainer both do so, each line by one write."""
        record = {"created_at": int(time.time()), "level": level, "message": message, "type": type, "data": data or {}}
        append_line(self.events_file, record)

    def events(self, start: int = 0) -> list[dict[str, Any]]:
        """Events from number `start` on, oldest first."""
        return read_lines(self.events_file)[start:]

    def finish(self, outcome: Result | Failure) -> None:
        """Write the outcome, whole or not at all."""
        write_atomically(self._result if isinstance(outcome, Result) else self._failure, outcome)

    def outcome(self) -> Result | Failure | None:
        """The outcome, or None if the job has not ended."""
        if self._result.exists():
            return Result.model_validate_json(self._result.read_bytes())
        if self._failure.exists():
            return Failure.model_validate_json(self._failure.read_bytes())
        return None

    def newest_checkpoint(self) -> int:
        """Step of the newest checkpoint; 0 if there is none."""
        steps = [int(folder.name.rpartition("-")[2]) for folder in self.checkpoints.glob("checkpoint-*")]
        return max(steps, default=0)

    def drop_checkpoints(self) -> None:
        """Delete what only a resume needs; registered adapters were copied into the store."""
        for folder in (self.checkpoints, self.path / "extracted"):
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold the job's lock, with our process id in it; a second trainer waits here until the first has ended."""
        with self._lock.open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def trainer_pid(self) -> int | None:
        """Process id of the trainer that holds the lock, or None."""
        if not self._lock.exists():
            return None
        with self._lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read() or 0) or None
        return None


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append a JSON line by one write, so that lines of concurrent writers are never mixed."""
    with path.open("ab", buffering=0) as stream:
        stream.write(json.dumps(record).encode() + b"\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete JSON lines of a file that may be growing; none if it does not exist yet.

    Lines that a full disk or a crash cut off are left out.
    """
    records: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_bytes().splitlines(keepends=True):
            with suppress(ValueError):
                if line.endswith(b"\n"):
                    records.append(json.loads(line))
    return records


def write_atomically(path: Path, content: BaseModel) -> None:
    """Write a record, whole and synced to disk, or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        stream.write(content.model_dump_json(indent=2).encode())
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
