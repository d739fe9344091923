"""Runs processes for tests, each with a time limit; kills them with all children, and leaves no pipe open."""

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
    """Run a command to its end; if that takes longer than the limit, fail the test and show the output so far.

    Args:
        environment: variables besides the test's own.
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
    """The output of a killed process, without the rest if an escaped child holds its pipes open."""
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
    """Run a process during the block, with a pipe from its output; it is killed at the end."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, **options)
    try:
        yield process
    finally:
        kill(process.pid)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
