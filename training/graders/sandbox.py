"""Runs a Python grader's code in a sandbox: Landlock and seccomp by sandlock, 70 ms per batch.

The code can only read Python's own files, cannot write, and has no network, no access to other processes, no
environment, `MAX_MEMORY` of memory and `SECONDS_A_CALL` for each answer. If the kernel cannot enforce that (Linux
before 6.12), Python graders are refused.
"""

import json
import math
import sys
import sysconfig
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandlock import Sandbox, SandlockError, StdioMode, landlock_abi_version, min_landlock_abi

from training.errors import TrainingError

SECONDS_A_CALL = 5.0
START_SECONDS = 10.0  # for the interpreter and the source's imports
MAX_MEMORY = "2G"  # OpenAI's limit
MAX_OUTPUT_BYTES = 1 << 16  # for each answer
MAX_OPEN_FILES = 64  # the kernel keeps a buffer for each pipe
# Calls that allocate memory outside of the address space, which MAX_MEMORY would not count
UNCOUNTED = ("memfd_create", "memfd_secret", "shmget", "msgget", "semget")
# Calls that reach other processes of the same user, such as the server. `_RUNNER` adds two that sandlock itself needs
OTHERS = (
    *("setpriority", "ioprio_set", "pidfd_open", "process_madvise", "kcmp", "migrate_pages", "move_pages"),
    *("sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "socketpair"),
)

# Answers are lines of JSON on the real standard output; what the code prints goes to standard error.
# Before the code is read, a seccomp filter (BPF) forbids changing other processes' limits, and sockets.
_RUNNER = """
import ctypes, json, os, platform, struct, sys, traceback
prlimit64, socket = (302, 41) if platform.machine() == "x86_64" else (261, 198)
load, equal, end, refused, allowed = 0x20, 0x15, 0x06, 0x00050001, 0x7FFF0000
filter = b"".join(struct.pack("HBBI", *one) for one in (
    (load, 0, 0, 0), (equal, 0, 2, prlimit64),  # the call's number
    (load, 0, 0, 16), (equal, 2, 1, 0),  # whose limits: 0 is its own
    (equal, 0, 1, socket), (end, 0, 0, refused), (end, 0, 0, allowed),
))
code = ctypes.create_string_buffer(filter)
program = struct.pack("HP", len(filter) // 8, ctypes.addressof(code))
if ctypes.CDLL(None).prctl(22, 2, program) != 0:
    sys.exit(1)
out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
source = json.loads(sys.stdin.readline())
names = {"__name__": "grader"}
def last():
    return traceback.format_exc(limit=-1)[-2000:]
try:
    exec(compile(source, "<grader>", "exec"), names)
    grade = names["grade"]
except BaseException:
    print(json.dumps({"error": last()}), file=out)
    sys.exit(1)
print(json.dumps({"ready": True}), file=out)
for line in sys.stdin:
    sample, item = json.loads(line)
    try:
        answer = {"score": float(grade(sample, item))}
    except BaseException:
        answer = {"error": last()}
    print(json.dumps(answer), file=out)
"""


@dataclass(frozen=True)
class Verdict:
    """A score, or an error."""

    score: float = 0.0
    error: str | None = None


class BrokenSource(TrainingError, ValueError):
    """A grader's source is no valid Python, or fails while it is loaded."""


class SandboxUnavailable(TrainingError, RuntimeError):
    """This machine cannot confine a grader's code."""


def require() -> None:
    """Check, before hours are spent, whether Python graders can run here.

    Raises:
        SandboxUnavailable: they cannot.
    """
    have, need = landlock_abi_version(), min_landlock_abi()
    if have < need:
        raise SandboxUnavailable(
            "python graders run in a sandbox, and this machine's kernel cannot make one: it takes Landlock, version "
            f"{need} (Linux 6.12), and here is {f'version {have}' if have > 0 else 'none'}; use another grader"
        )


def check(source: str) -> None:
    """Load a source in the sandbox, as compiling it may take all memory, without grading.

    Raises:
        BrokenSource: the source does not load.
        SandboxUnavailable: this machine cannot confine the code.
    """
    require()
    with _started() as process:
        ready = _exchange(process, source, START_SECONDS)
        process.kill()
    if "ready" not in ready:
        raise BrokenSource(f"source does not load: {ready.get('error', 'it wrote something else')}")


def run(source: str, cases: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[Verdict]:
    """Call the source's `grade(sample, item)` for each case; one that fails, hangs or crashes affects no other.

    Args:
        cases: (sample, item) pairs.

    Raises:
        SandboxUnavailable: the kernel has no Landlock, or an old version.
    """
    require()
    verdicts: list[Verdict] = []
    while len(verdicts) < len(cases):  # after a hang or a crash, a new process goes on after that case
        verdicts += _process(source, cases[len(verdicts) :])
    return verdicts


def _process(source: str, cases: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[Verdict]:
    verdicts: list[Verdict] = []
    with _started() as process:
        ready = _exchange(process, source, START_SECONDS)
        if "ready" not in ready:
            return [_verdict({"error": "the source did not load", **ready})] * len(cases)
        for case in cases:
            answer = _exchange(process, case, SECONDS_A_CALL)
            verdicts.append(_verdict(answer))
            if "lost" in answer:
                break
        process.kill()
    return verdicts


def _started() -> Any:
    sandbox = Sandbox(
        fs_readable=_python_files(),
        max_memory=MAX_MEMORY,
        max_processes=1,
        max_open_files=MAX_OPEN_FILES,
        extra_deny_syscalls=(*UNCOUNTED, *OTHERS),
        clean_env=True,
        no_coredump=True,
    )
    command = [str(Path(sys.executable).resolve()), "-I", "-c", _RUNNER]
    try:
        return sandbox.popen(command, stdin=StdioMode.PIPED, stdout=StdioMode.PIPED, stderr=StdioMode.NULL)
    except (SandlockError, RuntimeError) as error:
        raise SandboxUnavailable(f"this machine cannot confine a python grader: {error}") from error


def _exchange(process: Any, message: Any, seconds: float) -> dict[str, Any]:
    """Send a line and wait for one; return `lost` if none came in time, the process ended, or the line is not JSON."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        process.stdin.write(json.dumps(message).encode() + b"\n")
        line = process.stdout.readline(MAX_OUTPUT_BYTES)
    except OSError:
        line = b""
    finally:
        in_time = timer.is_alive()
        timer.cancel()
    if not in_time:
        return {"lost": True, "error": f"it took longer than {seconds:.0f} s"}
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        return {"lost": True, "error": "it ended without a score: out of memory, killed, or it left Python"}
    return answer


def _verdict(answer: dict[str, Any]) -> Verdict:
    score = answer.get("score")
    if isinstance(score, float) and math.isfinite(score):
        return Verdict(score=score)
    error = str(answer.get("error", f"its score is {score!r}, no finite number"))
    return Verdict(
        error=error.encode("utf-8", "backslashreplace").decode()
    )  # the code's message may hold half surrogate pairs


def _python_files() -> list[str]:
    """Folders that Python needs to read: its library, the installed packages, the C library."""
    prefixes = {sys.base_prefix, *(sysconfig.get_path(name) for name in ("purelib", "platlib"))}
    system = [
        folder for folder in ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache") if Path(folder).exists()
    ]
    return sorted(prefixes) + system
