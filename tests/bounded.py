"""`python tests/bounded.py SECONDS COMMAND…`: run a command to its end or a deadline, and leave no process behind.

All processes that the command starts are found, whatever their session, since we are the subreaper, which adopts
orphans. At the deadline the command prints its stacks (SIGABRT, Python's faulthandler), then everything is killed and
the running test is named. Processes that still run after a normal end are killed and named too, and the run fails.

Exit status: the command's; 124: the deadline; 125: it left processes behind.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import psutil

RUNNING_VARIABLE = "TUNEPORT_RUNNING_TESTS"  # a folder where conftest.py writes the running tests' names
# Engines, trainers and tests share few cores, on CI also with other runs. OpenMP's threads, which spin while they wait
# for each other, then take 25 times as long (training/__main__.py).
CROWDED = {"GOMP_SPINCOUNT": "1000"}
DEADLINE_PASSED, LEFT_BEHIND = 124, 125
POLL_SECONDS = 0.1
STACKS_SECONDS = 5.0
LINGER_SECONDS = 5.0  # for processes to end by themselves after the command
_PR_SET_CHILD_SUBREAPER = 36


def run(seconds: float, command: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sign, _interrupted)
    what = " ".join(command)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**CROWDED, **os.environ, RUNNING_VARIABLE: folder}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            status = _wait(process, seconds)
        except subprocess.TimeoutExpired:
            print(f"\nSTOPPED after {seconds:.0f} s at {_running(folder)}: {what}", file=sys.stderr, flush=True)
            process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STACKS_SECONDS)
            return DEADLINE_PASSED
        except KeyboardInterrupt:
            print(f"\nINTERRUPTED at {_running(folder)}: {what}", file=sys.stderr, flush=True)
            return 128 + signal.SIGTERM
        finally:
            left = _end_all()
    for line in left:
        print(f"LEFT BEHIND: {line}", file=sys.stderr)
    return status or (LEFT_BEHIND if left else 0)


def _running(folder: str) -> str:
    """The running tests: the last that each process began."""
    files = sorted(Path(folder).iterdir())
    workers = [file for file in files if file.name != "main"]  # the main process repeats what they begin
    return ", ".join(file.read_text() for file in workers or files) or "its start"


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait for the process; also reap orphans that end meanwhile, else tests would see zombies."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            time.sleep(POLL_SECONDS)
        elif ended.si_pid == process.pid:
            return process.wait()
        else:
            os.waitpid(ended.si_pid, 0)
    raise subprocess.TimeoutExpired(process.args, seconds)


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_all() -> list[str]:
    """Wait LINGER_SECONDS for remaining processes, kill them, and return their names."""
    us = psutil.Process()
    deadline = time.monotonic() + LINGER_SECONDS
    while (left := _living(us)) and time.monotonic() < deadline:
        time.sleep(0.1)
    said: list[str] = []
    while left := _living(us):
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                said.append(f"{one.pid} {' '.join(one.cmdline())[:200]}")
                one.kill()
        psutil.wait_procs(left, 5)
    return said


def _living(us: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(ChildProcessError):  # reap orphans that ended
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return [child for child in us.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


if __name__ == "__main__":
    sys.exit(run(float(sys.argv[1]), sys.argv[2:]))
