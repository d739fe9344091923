"""Renders chat templates that came with an adapter in a separate process, with bounded memory, that can be killed.

A template is a program by an unknown author: `{{ 'a' * 10 ** 10 }}` takes 10 GB, and Jinja's own sandbox only protects
files and attributes. Where the kernel can enforce it, the process can read Python's own files and no others.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping
from typing import Any

from adapters.chat import bounded

MAX_MEMORY = 1 << 30
MAX_ANSWER_BYTES = 64 << 20
MAX_SECONDS = 2.0  # all other such templates wait meanwhile
PENALTY_SECONDS = 60.0
START_SECONDS = 60.0  # for transformers' imports
GRACE_SECONDS = 1.0  # for the process to say itself that a template takes too long
PROBE = {
    "messages": [{"role": "user", "content": "Hi"}],
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
}


class _Process:
    """The process. The first template starts it, as does the next one after a crash; it renders one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Any = None
        self._guilty: dict[str, float] = {}  # templates that took too long -> when they may be tried again

    def ask(self, template: str, variables: Mapping[str, Any]) -> dict[str, str]:
        """The rendered `text`, or an `error`."""
        with self._lock:
            self._guilty = {one: until for one, until in self._guilty.items() if time.monotonic() < until}
            if template in self._guilty:
                return {"error": f"the chat template took too long; it is tried again after {PENALTY_SECONDS:.0f} s"}
            if self._process is None or self._process.poll() is not None:
                self._process = _started()
                if "text" not in self._exchange("", {}, START_SECONDS):
                    raise RuntimeError("the process for chat templates does not start")
            began = time.monotonic()
            answer = self._exchange(template, variables, MAX_SECONDS)
            if "text" not in answer and time.monotonic() - began > MAX_SECONDS:
                self._guilty[template] = time.monotonic() + PENALTY_SECONDS
            return answer

    def _exchange(self, template: str, variables: Mapping[str, Any], seconds: float) -> dict[str, str]:
        process = self._process
        timer = threading.Timer(seconds + GRACE_SECONDS, process.kill)
        timer.start()
        try:
            asked = {"template": template, "variables": variables, "seconds": seconds}
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline(MAX_ANSWER_BYTES))
        except (OSError, ValueError):  # the process ended, perhaps in the middle of a line
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(OSError):
                process.stdin.close()
            return {"error": f"the chat template took more than {seconds:.0f} seconds, or {MAX_MEMORY >> 20} MB"}
        finally:
            timer.cancel()


_process = _Process()


def run(template: str, variables: Mapping[str, Any]) -> str:
    """Render a template with these variables.

    Raises:
        jinja2.TemplateError: it is not valid Jinja, raised an error, or took too much time or memory.
    """
    from jinja2 import TemplateError

    answer = _process.ask(template, variables)
    if "text" not in answer:
        raise TemplateError(answer["error"])
    return answer["text"]


def fault(template: str) -> str | None:
    """Why a template cannot be served (wrong syntax, or it fails on the message "Hi"); None if it can."""
    error = _process.ask(template, PROBE).get("error")
    return None if error is None else f"no Jinja template that can be served: {error}"


def _started() -> "subprocess.Popen[bytes]":
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "TZ") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "adapters.chat.apart"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=kept
    )


def _serve() -> None:
    """Run in the separate process: answer each line of JSON with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    bounded.run("", {})  # imports what it needs before the limits apply
    _confine()
    for line in sys.stdin:
        asked = json.loads(line)
        bounded.MAX_SECONDS = asked["seconds"]
        answers.write(json.dumps(_answer(asked["template"], asked["variables"])) + "\n")


def _answer(template: str, variables: dict[str, Any]) -> dict[str, str]:
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        return {"text": bounded.run(template, variables)}
    except TemplateSyntaxError as error:
        return {"error": f"{error.message} (line {error.lineno})"}
    except MemoryError:
        return {"error": f"it takes more than {MAX_MEMORY >> 20} MB"}
    except (TemplateError, *bounded.RAISED) as error:
        return {"error": str(error)}


def _confine() -> None:
    from sandlock import Sandbox, SandlockError, confine

    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(SandlockError):  # an old kernel: only Jinja's sandbox protects
        confine(Sandbox(fs_readable=[sys.base_prefix, sysconfig.get_path("purelib")]))


if __name__ == "__main__":
    _serve()
