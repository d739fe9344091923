"""Trainers as a server starts them, forked by the spawner, so that the imports are only done once for all tests."""

import json
import subprocess
import sys
import tempfile
import threading
from typing import Any

from tests import processes
from training.directory import JobDirectory
from training.job import Failure, Result

LIMIT_SECONDS = 110.0


class Spawner:
    """The spawner, started through mortal.py, and its messages about each trainer."""

    def __init__(self, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._limit_seconds = limit_seconds
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the spawner lives)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.training.mortal", "--wait"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        self._complaints = ""
        self._said: dict[tuple[str, int], dict[str, int]] = {}
        self._changed = threading.Condition()
        self._orders = 0
        threading.Thread(target=self._read, daemon=True).start()

    def start(self, directory: JobDirectory, environment: dict[str, str] | None = None) -> tuple[int, int]:
        """Start a trainer; return its number, and its process id when it holds the job's lock."""
        assert self._process.stdin is not None
        self._orders += 1
        order = {"id": self._orders, "job": str(directory.description), "environment": environment or {}}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._orders, self._heard("started", self._orders)["pid"]

    def ended(self, number: int) -> int:
        """Wait for a trainer's end; return its exit status, or minus the signal that killed it."""
        return self._heard("ended", number)["status"]

    def train(self, directory: JobDirectory, environment: dict[str, str] | None = None) -> Result | Failure | None:
        """Run a trainer from start to end; return the job's outcome."""
        number, pid = self.start(directory, environment)
        try:
            self.ended(number)
        except BaseException:  # also the test's timeout: no trainer may outlive its test
            processes.kill(pid)
            raise
        return directory.outcome()

    def close(self) -> None:
        """End the spawner."""
        processes.kill(self._process.pid)
        self._process.wait()

    def _heard(self, what: str, number: int) -> dict[str, Any]:
        with self._changed:
            self._changed.wait_for(lambda: (what, number) in self._said or self._complaints, self._limit_seconds)
            assert not self._complaints, f"the spawner ended: {self._complaints}"
            assert (what, number) in self._said, f"trainer {number} has not {what} after {self._limit_seconds:.0f} s"
            return self._said[what, number]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._changed:
                for what in ("started", "ended"):
                    if what in answer:
                        self._said[what, answer[what]] = answer
                self._changed.notify_all()
        with self._changed:  # its output is closed: it has ended
            self._log.seek(0)
            self._complaints = self._log.read()[-3000:] or "without a word"
            self._changed.notify_all()
