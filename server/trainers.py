"""Trainers as processes: started for a job, ended with grace, and one kept warm.

A trainer spends 15 to 25 s on imports before its first step. So one waits with them done, and takes the next job at
once; it has no job's file open, ends with the server, and costs half a GB of memory (`warm_trainer` turns it off).
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from pathlib import Path

from training.directory import JobDirectory

logger = logging.getLogger(__name__)

NICENESS = 10  # live traffic has the cores first: beside an import, its tokens took a second each
STOP_GRACE_SECONDS = 4.0  # a step, and a checkpoint; OpenAI's users see a pause within five

_COMMAND = (sys.executable, "-P", "-m", "training")


class Trainers:
    """Starts trainers; `keep_warm` says whether one waits."""

    def __init__(self, keep_warm: bool) -> None:
        self._keep_warm = keep_warm
        self._warm: asyncio.subprocess.Process | None = None

    async def warm(self) -> None:
        """Have a trainer wait, where none does."""
        if self._keep_warm and (self._warm is None or self._warm.returncode is not None):
            self._warm = await asyncio.create_subprocess_exec(
                *_COMMAND,
                "--wait",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            _yield_cores(self._warm)

    async def start(self, directory: JobDirectory, environment: dict[str, str]) -> asyncio.subprocess.Process:
        """A trainer at work on the job: the one that waits, or a new one.

        Args:
            environment: what it finds beside the server's own.
        """
        process, self._warm = self._warm, None
        if process is not None and process.returncode is None and process.stdin is not None:
            line = json.dumps({"job": str(directory.description), "environment": environment})
            with contextlib.suppress(ConnectionError):
                process.stdin.write(line.encode() + b"\n")
                await process.stdin.drain()
                return process
        with directory.log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                str(directory.description),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory.path,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        _yield_cores(process)
        return process

    async def stop(self, directory: JobDirectory) -> None:
        """End the job's trainer: SIGTERM, and SIGKILL after a grace."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            runner = directory.runner()
            if runner is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(runner, sign)
            for _ in range(round(STOP_GRACE_SECONDS / 0.1)):
                if directory.runner() is None:
                    return
                await asyncio.sleep(0.1)
        logger.error("trainer %s of %s does not end", directory.runner(), Path(directory.path).name)

    def close(self) -> None:
        """Let the one that waits go."""
        if self._warm is not None and self._warm.returncode is None:
            self._warm.kill()


def _yield_cores(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(OSError):  # it may have ended, and not every kernel groups sessions
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        Path(f"/proc/{process.pid}/autogroup").write_text(str(NICENESS))  # where it does, a process's own counts less
