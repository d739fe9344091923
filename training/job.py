"""The description that server and trainer share, and the directory a job is.

A job is a directory: `job.json` in; `events.jsonl`, `metrics.jsonl`, `checkpoints/`, then `result.json` with
`adapter/`, or `failure.json`, out. Whoever holds the lock runs it; killing anything loses at most the steps since a
checkpoint.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Auto = Literal["auto"]


class Hyperparameters(BaseModel):
    """OpenAI's supervised hyperparameters and limits, and Tuneport's `replay_share`."""

    model_config = ConfigDict(extra="forbid")

    n_epochs: int | Auto = Field(default="auto")
    batch_size: int | Auto = Field(default="auto")
    learning_rate_multiplier: float | Auto = Field(default="auto")
    replay_share: float | Auto = Field(
        default="auto",
        description="Share of the base's own answers to general prompts in what is trained; 0 turns it off.",
    )

    def model_post_init(self, _context: object) -> None:
        """Check OpenAI's ranges."""
        for field, low, high in (("n_epochs", 1, 50), ("batch_size", 1, 256), ("replay_share", 0, 0.5)):
            value = getattr(self, field)
            if value != "auto" and not low <= value <= high:
                raise ValueError(f"{field} is {value}; expected 'auto' or a number from {low} to {high}")
        if self.learning_rate_multiplier != "auto" and not 0 < self.learning_rate_multiplier < float("inf"):
            raise ValueError("learning_rate_multiplier must be 'auto' or a number above 0")


class TrainingJob(BaseModel):
    """One supervised fine-tuning job.

    Attributes:
        base_model: served name of the base, `base_path` its folder.
        training_file, validation_file: chat JSONL; without the second, a tenth of the first is held out.
        seed: of the split, the order of the data, LoRA's initial weights and dropout.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    base_model: str
    base_path: Path
    training_file: Path
    validation_file: Path | None = None
    hyperparameters: Hyperparameters = Hyperparameters()
    seed: int = Field(default=0, ge=0, lt=2**31)


class Checkpoint(BaseModel):
    """An adapter saved at an epoch's end; `directory` is relative to the job's."""

    step: int
    directory: str
    metrics: dict[str, float]
    created_at: int


class Result(BaseModel):
    """What a finished job leaves; `adapter` holds the best checkpoint's weights, not the last's."""

    trained_tokens: int
    best_step: int
    checkpoints: list[Checkpoint]
    hyperparameters: Hyperparameters


class Failure(BaseModel):
    """Why a job failed, as OpenAI's error object has it."""

    code: str
    message: str
    param: str | None = None


class JobDirectory:
    """Paths and records of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.description = path / "job.json"
        self.events_file = path / "events.jsonl"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.adapter = path / "adapter"
        self.log_file = path / "trainer.log"
        self._result = path / "result.json"
        self._failure = path / "failure.json"
        self._lock = path / "lock"

    @classmethod
    def create(cls, path: Path, job: TrainingJob) -> "JobDirectory":
        """Make the directory, or open it again after a crash; the description is written once."""
        path.mkdir(parents=True, exist_ok=True)
        directory = cls(path)
        if not directory.description.exists():
            _write_atomically(directory.description, job)
        return directory

    def job(self) -> TrainingJob:
        """The description."""
        return TrainingJob.model_validate_json(self.description.read_bytes())

    def event(
        self,
        message: str,
        *,
        level: Literal["info", "warn", "error"] = "info",
        type: Literal["message", "metrics"] = "message",
        data: dict[str, Any] | None = None,
    ) -> None:
        """Append an event; server and trainer both do, one whole line a write."""
        record = {"created_at": int(time.time()), "level": level, "message": message, "type": type, "data": data or {}}
        append_line(self.events_file, record)

    def events(self, start: int = 0) -> list[dict[str, Any]]:
        """Events from the `start`-th on, oldest first."""
        return read_lines(self.events_file)[start:]

    def finish(self, outcome: Result | Failure) -> None:
        """Record the outcome; it appears whole or not at all."""
        _write_atomically(self._result if isinstance(outcome, Result) else self._failure, outcome)

    def outcome(self) -> Result | Failure | None:
        """The outcome, or None while there is none."""
        if self._result.exists():
            return Result.model_validate_json(self._result.read_bytes())
        if self._failure.exists():
            return Failure.model_validate_json(self._failure.read_bytes())
        return None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold the job's lock, with our process id in it; a second trainer waits here until the first is gone."""
        with self._lock.open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def runner(self) -> int | None:
        """Process id of the trainer that holds the lock, or None where nobody does."""
        if not self._lock.exists():
            return None
        with self._lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read() or 0) or None
        return None


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append a JSON line by one write, so that concurrent writers never mix theirs."""
    with path.open("ab", buffering=0) as stream:
        stream.write(json.dumps(record).encode() + b"\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole JSON lines of a file that may be growing; none where it does not exist yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _write_atomically(path: Path, content: BaseModel) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        stream.write(content.model_dump_json(indent=2).encode())
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
