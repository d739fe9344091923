"""Processes that tests start: each has a limit, dies with all its children, and leaves no pipe open."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

PIPE_SECONDS = 5.0


def run(
    command: Sequence[str],
    *,
    limit_seconds: float,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; fail the test, with what was said so far, where that takes longer than the limit.

    Args:
        environment: beside the test's own.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit_seconds)
    except BaseException as error:  # also the test's own timeout
        kill(process.pid)
        out, err = _rest(process)
        if isinstance(error, subprocess.TimeoutExpired):
            pytest.fail(f"{' '.join(command)[:200]} still ran after {limit_seconds:.0f} s: {(out + err)[-3000:]}")
        raise
    return subprocess.CompletedProcess(list(command), process.returncode, out, err)


def _rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a killed process said; little where a child of its that got away holds its pipes."""
    try:
        return process.communicate(timeout=PIPE_SECONDS)
    except subprocess.TimeoutExpired:
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
        return "", "(a child that got away holds its output)"


def kill(pid: int) -> None:
    """Kill a process, its group and its children, whatever session they moved to."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the time of the block, with a pipe from its output; killed at the end, however that comes."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, **options)
    try:
        yield process
    finally:
        kill(process.pid)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
