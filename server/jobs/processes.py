"""Runs trainers as processes on this machine.

A trainer needs 10 to 25 s for imports before its first step. So a spawner (training/spawner.py) waits with the imports
done, and forks a trainer for each job. It ends with the server, and costs half a GB of memory (`warm_trainer` turns it
off).
"""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
from pathlib import Path

from training.directory import TRAINER, JobDirectory

logger = logging.getLogger(__name__)

NICENESS = 10  # live traffic gets the cores first: beside a trainer's imports, a token took a second
END_SECONDS = 2.0  # at the end, to wait for a trainer that is being forked
STOP_GRACE_SECONDS = 4.0  # time for a step and a checkpoint; a pause at OpenAI takes effect within five seconds


class Trainers:
    """A `Runner` that starts processes on this machine."""

    def __init__(self, keep_warm: bool, log: Path, environment: dict[str, str] | None = None) -> None:
        """Make one; nothing runs yet.

        Args:
            keep_warm: whether to keep a spawner waiting.
            log: file for the spawner's standard error.
            environment: variables for all trainers: secrets, which must not be in a job's files.
        """
        self._environment = environment or {}
        self._keep_warm = keep_warm
        self._log = log
        self._spawner: _Spawner | None = None
        self._started: dict[Path, int] = {}  # job directory -> process id, known before it takes the job's lock

    async def warm(self) -> None:
        """Start a spawner, if there is none and `keep_warm` is set."""
        if self._keep_warm and (self._spawner is None or not self._spawner.alive):
            self._spawner = await _Spawner.start(self._log)

    async def start(self, directory: JobDirectory, environment: dict[str, str]) -> "asyncio.Future[int]":
        """Start a trainer for the job, forked by the spawner or as a new process; return its exit status to come.

        Args:
            environment: further variables for this trainer.
        """
        environment = self._environment | environment
        if self._spawner is not None and self._spawner.alive:
            with contextlib.suppress(ConnectionError):
                pid, ended = await self._spawner.fork(directory, environment)
                _yield_cores(pid)  # again for the new session: the kernel may schedule by sessions
                return self._following(directory, pid, ended)
        with directory.log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *TRAINER,
                str(directory.description),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory.path,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        _yield_cores(process.pid)
        return self._following(directory, process.pid, asyncio.ensure_future(process.wait()))

    async def stop(self, directory: JobDirectory) -> None:
        """End the job's trainer: SIGTERM, then SIGKILL after STOP_GRACE_SECONDS."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            runner = self._runner(directory)
            if runner is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(runner, sign)
            for _ in range(round(STOP_GRACE_SECONDS / 0.1)):
                if self._runner(directory) is None:
                    return
                await asyncio.sleep(0.1)
        logger.error("trainer %s of %s does not end", directory.trainer_pid(), directory.path.name)

    async def close(self) -> None:
        """End the spawner."""
        if self._spawner is not None:
            await self._spawner.end()

    def _runner(self, directory: JobDirectory) -> int | None:
        return directory.trainer_pid() or self._started.get(directory.path.absolute())

    def _following(self, directory: JobDirectory, pid: int, ended: "asyncio.Future[int]") -> "asyncio.Future[int]":
        path = directory.path.absolute()
        self._started[path] = pid

        def forget(_ended: "asyncio.Future[int]") -> None:
            if self._started.get(path) == pid:
                del self._started[path]

        ended.add_done_callback(forget)
        return ended


class _Spawner:
    """The spawner's process, and the trainers that it forked."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count()
        self._starting: dict[int, asyncio.Future[int]] = {}  # by order number: the process id to come
        self._running: dict[int, asyncio.Future[int]] = {}  # by order number: the exit status to come
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, log: Path) -> "_Spawner":
        """Start the process; orders wait until its imports are done."""
        with log.open("wb") as stream:
            process = await asyncio.create_subprocess_exec(
                *TRAINER,
                "--wait",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stream,
                start_new_session=True,
            )
        _yield_cores(process.pid)
        return cls(process)

    @property
    def alive(self) -> bool:
        """Whether the spawner takes orders."""
        return not self._reading.done() and self._process.returncode is None

    async def fork(self, directory: JobDirectory, environment: dict[str, str]) -> "tuple[int, asyncio.Future[int]]":
        """Fork a trainer and wait until it holds the job's lock; return its process id and its exit status to come.

        Raises:
            ConnectionError: the spawner ended.
        """
        assert self._process.stdin is not None
        number = next(self._ids)
        loop = asyncio.get_running_loop()
        started = self._starting[number] = loop.create_future()
        ended = self._running[number] = loop.create_future()
        line = json.dumps({"id": number, "job": str(directory.description), "environment": environment})
        self._process.stdin.write(line.encode() + b"\n")
        try:
            await self._process.stdin.drain()
            return await asyncio.shield(started), ended
        except asyncio.CancelledError:  # the job was cancelled or paused meanwhile
            started.add_done_callback(_end)
            raise

    async def end(self) -> None:
        """End the spawner; its trainers go on, except one whose job was cancelled while it was forked."""
        if self._starting:
            await asyncio.wait(self._starting.values(), timeout=END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        gone = asyncio.create_task(self._process.wait())  # trainers hold the pipe open, so its end does not tell
        while not gone.done():
            line = asyncio.create_task(self._process.stdout.readline())
            await asyncio.wait({gone, line}, return_when=asyncio.FIRST_COMPLETED)
            if not line.done():
                line.cancel()
            elif line.result():
                self._take(json.loads(line.result()))
            else:
                await gone
        logger.warning("the spawner of trainers ended with status %s; each starts by itself now", gone.result())
        for waiting in (*self._starting.values(), *self._running.values()):
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("the spawner ended"))
                waiting.exception()  # mark it as retrieved, since nobody may wait for it
        self._starting.clear()
        self._running.clear()

    def _take(self, answer: dict[str, int]) -> None:
        if "started" in answer:
            self._starting.pop(answer["started"]).set_result(answer["pid"])
            return
        starting = self._starting.pop(answer["ended"], None)
        if starting is not None:  # the trainer failed before it began; trainer.log says why
            starting.set_exception(ConnectionAbortedError("the trainer ended before it began"))
            starting.exception()
        self._running.pop(answer["ended"]).set_result(answer["status"])


def _end(started: "asyncio.Future[int]") -> None:
    if not started.cancelled() and started.exception() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.result(), signal.SIGTERM)


def _yield_cores(pid: int) -> None:
    with contextlib.suppress(OSError):  # the process may have ended, and not every kernel has autogroups
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
        Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS))  # counts before a process's niceness
