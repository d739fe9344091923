"""`python -m training --wait`: a process with all imports done, which forks a trainer for each job.

Imports take a trainer 10 to 25 s; a fork of this process has them already. Nothing is computed here, so that a child
lacks no thread that a library waits for (GNU's OpenMP hangs in a child of a process that computed).

Standard input has a line per trainer: {"id": n, "job": path of its description, "environment": {...}}. Standard output
has {"started": id, "pid": n} when the trainer holds the job's lock, and {"ended": id, "status": n} when it has ended.
The process ends with its input; running trainers go on.
"""

import gc
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from training.directory import TRAINER, JobDirectory

PRELOADED = (
    "training.methods.supervised",
    "training.methods.preference",
    "training.methods.reinforcement",
    "training.proof.evaluate",
    "training.proof.report",
    "training.proof.split",
    "training.render",
)

Work = Callable[[JobDirectory, Callable[[], None]], int]


def serve(work: Work, must_start_afresh: Callable[[JobDirectory], bool]) -> int:
    """Fork a trainer for each line of input, until the input ends.

    Args:
        work: runs a job and returns the exit status; calls its second argument once it holds the job's lock.
        must_start_afresh: whether the job needs a new process instead of a fork.
    """
    answers = os.dup(1)
    os.dup2(2, 1)  # keeps what libraries print out of the answers
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()  # keep imports out of collections, which took each trainer a second and copied their memory pages
    children: dict[int, int] = {}

    def reap(_signal: int = 0, _frame: FrameType | None = None) -> None:
        for pid in list(children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                _say({"ended": children.pop(pid), "status": os.waitstatus_to_exitcode(status)}, answers)

    signal.signal(signal.SIGCHLD, reap)
    for line in iter(sys.stdin.readline, ""):
        order = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # a child may end before we record it
        pid = os.fork()
        if pid == 0:
            return _as_trainer(order, answers, work, must_start_afresh)  # the child ends when this function returns
        children[pid] = order["id"]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    return 0


def _as_trainer(
    order: dict[str, Any], answers: int, work: Work, must_start_afresh: Callable[[JobDirectory], bool]
) -> int:
    """Set session, log and folder as for a new process, then run the job."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.setsid()
    os.environ.update(order["environment"])
    directory = JobDirectory(Path(order["job"]).parent)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(directory.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for file, stream in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(file, stream)
    os.chdir(directory.path)

    def started() -> None:
        _say({"started": order["id"], "pid": os.getpid()}, answers)
        os.close(answers)

    if must_start_afresh(directory):
        started()
        os.execv(TRAINER[0], [*TRAINER, order["job"]])  # noqa: S606
    return work(directory, started)


def _say(answer: dict[str, Any], stream: int) -> None:
    """Write a line by one write, since several processes share the pipe."""
    try:
        os.write(stream, json.dumps(answer).encode() + b"\n")
    except BrokenPipeError:
        return  # the server is gone; the trainer goes on, and the next server finds it by its lock
