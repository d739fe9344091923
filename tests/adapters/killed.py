"""`python -m tests.adapters.killed FOLDER BASE SOURCE register|remove`: killed before every change of disk and rows.

For each change that a registration or a removal makes, a child is forked, which dies by SIGKILL before that change.
After each kill, every name must have its whole files, and every file a name. Prints where each kill fell, a line each.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from adapters.base import BaseModel
from adapters.errors import AdapterNotFound
from tests.adapters.test_registry import NAME, open_registry

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}


def main(folder: Path, base: BaseModel, source: Path, what: str) -> None:
    """Fork and kill children until one reaches its end."""
    open_registry(folder, base).register(NAME, source, owned_by="acme")  # so that children need no imports
    number, ended = 0, False
    while not ended:
        number += 1
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            _child(folder, base, source, what, number, writing)
        os.close(writing)
        _, status = os.waitpid(pid, 0)
        with os.fdopen(reading) as told:
            place = told.read()
        ended = status == 0
        assert ended or os.WTERMSIG(status) == signal.SIGKILL, place
        registry = open_registry(folder, base)
        for adapter in registry.list():
            registry.store.verify(adapter.digest)
        folders = {path.name for path in registry.store.root.iterdir() if not path.name.startswith(".")}
        assert folders == {adapter.digest for adapter in registry.list()}, place
        print(place)


def _child(folder: Path, base: BaseModel, source: Path, what: str, number: int, told: int) -> None:
    registry = open_registry(folder, base)
    if what == "register":
        with contextlib.suppress(AdapterNotFound):
            registry.remove(NAME)
    else:
        registry.register(NAME, source, owned_by="acme")
    _count_changes(folder, number, lambda change: os.write(told, change.encode()))
    if what == "register":
        registry.register(NAME, source, owned_by="acme")
    else:
        registry.remove(NAME)
    os._exit(0)


def _count_changes(folder: Path, number: int, tell: Callable[[str], object]) -> None:
    """Die before change number `number`."""
    left = number

    def step(change: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            tell(change)
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(name: str, arguments: tuple[Any, ...]) -> None:
        path = str(arguments[0]) if arguments else ""
        writes = name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        inside = path.startswith(f"{folder}/") or (name in CHANGES and "/" not in path)  # relative to an open folder
        if (name in CHANGES or writes) and inside:
            step(f"{name} {path.removeprefix(f'{folder}/')}")

    @event.listens_for(Engine, "before_cursor_execute")
    def _executes(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith("SELECT"):
            step(" ".join(statement.split()[:3]))

    @event.listens_for(Engine, "commit")
    def _commits(_connection: Any) -> None:
        step("commit")

    sys.addaudithook(audit)


if __name__ == "__main__":
    main(Path(sys.argv[1]), BaseModel.read(Path(sys.argv[2])), Path(sys.argv[3]), sys.argv[4])
