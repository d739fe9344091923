"""The protocol by which the queue runs trainers; processes.py implements it with processes on this machine."""

import asyncio
from typing import Protocol

from training.directory import JobDirectory


class Runner(Protocol):
    """Starts and ends trainers. Queue and trainer share nothing but the job's directory."""

    async def warm(self) -> None:
        """Prepare for the next trainer, so that it starts sooner; may do nothing."""
        ...

    async def start(self, directory: JobDirectory, environment: dict[str, str]) -> "asyncio.Future[int]":
        """Start a trainer for the job; return its exit status to come. The trainer holds the directory's lock.

        Args:
            environment: variables for the trainer, besides the runner's own.
        """
        ...

    async def stop(self, directory: JobDirectory) -> None:
        """End the job's trainer: let it save a checkpoint first, kill it if that takes too long."""
        ...

    async def close(self) -> None:
        """Clean up when the server ends; all trainers have been stopped by then."""
        ...
