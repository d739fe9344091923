"""Trainers as processes: started for a job, ended with grace.

A trainer spends 10 to 25 s on imports before its first step. So a spawner waits with them done and forks one for each
job (training/spawner.py); it has no job's file open, ends with the server, and costs half a GB of memory
(`warm_trainer` turns it off).
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

NICENESS = 10  # live traffic has the cores first: beside an import, its tokens took a second each
END_SECONDS = 2.0  # for a trainer that is being forked
STOP_GRACE_SECONDS = 4.0  # a step, and a checkpoint; OpenAI's users see a pause within five


class Trainers:
    """A `Runner` of processes on this machine."""

    def __init__(self, keep_warm: bool, log: Path, environment: dict[str, str] | None = None) -> None:
        """Make one; nothing runs yet.

        Args:
            keep_warm: whether a spawner waits.
            log: the file that it complains to.
            environment: what trainers find there: secrets, which no file of a job may hold.
        """
        self._environment = environment or {}
        self._keep_warm = keep_warm
        self._log = log
        self._spawner: _Spawner | None = None
        self._started: dict[Path, int] = {}  # the job's directory -> process id, until it has the job's lock and after

    async def warm(self) -> None:
        """Have a spawner wait, where none does."""
        if self._keep_warm and (self._spawner is None or not self._spawner.alive):
            self._spawner = await _Spawner.start(self._log)

    async def start(self, directory: JobDirectory, environment: dict[str, str]) -> "asyncio.Future[int]":
        """A trainer at work on the job: forked by the spawner, or a process of its own. The result is its exit status.

        Args:
            environment: what it finds beside the server's own.
        """
        environment = self._environment | environment
        if self._spawner is not None and self._spawner.alive:
            with contextlib.suppress(ConnectionError):
                pid, ended = await self._spawner.fork(directory, environment)
                _yield_cores(pid)  # its session is new, and a session's own niceness is what counts
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
        """End the job's trainer: SIGTERM, and SIGKILL after a grace."""
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
        """Let the spawner go."""
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
    """The spawner's process, and the trainers that it said it forked."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count()
        self._starting: dict[int, asyncio.Future[int]] = {}  # by our own number: the process id to come
        self._running: dict[int, asyncio.Future[int]] = {}  # and the exit status
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, log: Path) -> "_Spawner":
        """Start the process; what is asked of it waits until its imports are done."""
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
        """Whether it takes jobs."""
        return not self._reading.done() and self._process.returncode is None

    async def fork(self, directory: JobDirectory, environment: dict[str, str]) -> "tuple[int, asyncio.Future[int]]":
        """A trainer that holds the job's lock: its process id, and its exit status to come.

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
        """End it; what it forked goes on, but for a trainer that nobody waits for any more."""
        if self._starting:
            await asyncio.wait(self._starting.values(), timeout=END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        gone = asyncio.create_task(self._process.wait())  # its children hold the pipe as well
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
                waiting.exception()  # taken here, where nobody waits for it
        self._starting.clear()
        self._running.clear()

    def _take(self, answer: dict[str, int]) -> None:
        if "started" in answer:
            self._starting.pop(answer["started"]).set_result(answer["pid"])
            return
        starting = self._starting.pop(answer["ended"], None)
        if starting is not None:  # it could not even begin; trainer.log says why
            starting.set_exception(ConnectionAbortedError("the trainer ended before it began"))
            starting.exception()
        self._running.pop(answer["ended"]).set_result(answer["status"])


def _end(started: "asyncio.Future[int]") -> None:
    if not started.cancelled() and started.exception() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.result(), signal.SIGTERM)


def _yield_cores(pid: int) -> None:
    with contextlib.suppress(OSError):  # it may have ended, and not every kernel groups sessions
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
        Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS))  # where it does, a process's own counts less
