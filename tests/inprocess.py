"""A server in the test's process: the whole application, its web server on a real socket, and a scripted engine.

It starts in a tenth of a second. Tests that need vLLM are in tests/e2e.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
from fastapi import FastAPI

from adapters.base import BaseModel
from server.app import create_app
from server.http import listen
from server.services import Services
from server.settings import Settings
from tests.scripted import ScriptedEngine

KEY = "sk-in-process-0123456789abcdef"
END_SECONDS = 20
PERCEPTIBLE_SECONDS = 0.25


@dataclass(frozen=True)
class InProcess:
    """A server on a thread; `data` is its data folder, `adapter_root` a folder for adapters to register."""

    base_url: str
    data: Path
    adapter_root: Path
    engine: ScriptedEngine
    services: Services = field(repr=False)
    api_key: str = KEY

    def http(self, key: str | None = KEY) -> httpx.Client:
        """A plain client of the server's root; None: without a key."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.base_url.removesuffix("/v1"), headers=headers, timeout=30)

    def openai(self, key: str = KEY) -> openai.OpenAI:
        """The SDK, without retries."""
        return openai.OpenAI(base_url=self.base_url, api_key=key, max_retries=0, timeout=30)

    def register(self, name: str, folder: Path) -> httpx.Response:
        """Register an adapter from the allowed folder."""
        target = self.adapter_root / folder.name
        if not target.exists():
            folder.rename(target)
        with self.http() as client:
            return client.post("/admin/adapters", json={"name": name, "path": str(target)})

    @contextlib.contextmanager
    def pauses(self) -> Iterator[list[float]]:
        """Collect the pauses of the server's event loop, in seconds, that clients would notice."""
        longest: list[float] = []

        async def turn() -> None:
            while True:
                before = time.monotonic()
                await asyncio.sleep(0)
                if (seconds := time.monotonic() - before) > PERCEPTIBLE_SECONDS:
                    longest.append(seconds)

        assert self.engine.loop is not None
        turning = asyncio.run_coroutine_threadsafe(turn(), self.engine.loop)
        try:
            yield longest
        finally:
            turning.cancel()

    def tell(self, change: Callable[[], object]) -> None:
        """Call `change` on the server's loop, where the engine lives."""
        assert self.engine.loop is not None
        self.engine.loop.call_soon_threadsafe(change)


@contextlib.contextmanager
def in_process(base: BaseModel, engine: ScriptedEngine, data: Path, **settings: Any) -> Iterator[InProcess]:
    """Run a server during the block; it is ended as by SIGTERM.

    Args:
        settings: fields of `Settings` besides the defaults for tests; `tls_certificate` and `tls_key` turn on https.
    """
    allowed = data / "allowed"
    allowed.mkdir(parents=True, exist_ok=True)
    wanted = {"adapter_root": [allowed], "data_dir": data / "state", "warm_trainer": False, **settings}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        given = Settings(model=str(base.path), port=port, **wanted)
        app = create_app(given, base, engine)
        if given.tls_certificate is None:
            server = listen.plain(app, given)
            run, stop = partial(server.run, [listening]), partial(setattr, server, "should_exit", True)
        else:
            listening.close()
            run, stop = _encrypted(app, given)
        thread = threading.Thread(target=run, daemon=True, name="in-process server")
        thread.start()
        scheme = "https" if given.tls_certificate else "http"
        services = _started(app, port, thread)
        if services.keys.check(KEY) is None:
            services.keys.create("in-process", admin=True, secret=KEY)
        try:
            yield InProcess(f"{scheme}://127.0.0.1:{port}/v1", given.data_dir, allowed, engine, services)
        finally:
            stop()
            thread.join(END_SECONDS)
            assert not thread.is_alive(), f"the server did not end within {END_SECONDS} s"


def _encrypted(app: FastAPI, settings: Settings) -> tuple[Callable[[], None], Callable[[], object]]:
    """Functions that run the server with TLS, on a new event loop, and that stop it."""
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    return (
        lambda: loop.run_until_complete(listen.encrypted(app, settings, stopping)),
        lambda: loop.call_soon_threadsafe(stopping.set),
    )


def _started(app: FastAPI, port: int, thread: threading.Thread) -> Services:
    """Wait until the application listens; return its parts."""
    while True:
        thread.join(0.01)
        assert thread.is_alive(), "the server did not start"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            if services := getattr(app.state, "services", None):
                return services


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
