"""What runs trainers, as the queue sees it: processes here today (processes.py), a cluster's jobs some day."""

import asyncio
from typing import Protocol

from training.directory import JobDirectory


class Runner(Protocol):
    """Starts and ends trainers. A job's directory is all that queue and trainer share."""

    async def warm(self) -> None:
        """Have the next trainer begin sooner; may do nothing."""
        ...

    async def start(self, directory: JobDirectory, environment: dict[str, str]) -> "asyncio.Future[int]":
        """A trainer at work on the job; the result is its exit status. The directory's lock says that it runs.

        Args:
            environment: what it finds beside the runner's own.
        """
        ...

    async def stop(self, directory: JobDirectory) -> None:
        """End the job's trainer: with grace for a last checkpoint, then without."""
        ...

    async def close(self) -> None:
        """The server ends; no trainer of ours runs any more."""
        ...
