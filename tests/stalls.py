"""Measures how long a server's other clients get nothing while bodies come in that were made to stall it."""

import asyncio
import contextlib
import http.client
import json
import socket
import sys
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from demo.server import free_port
from server.settings import Settings
from tests.hostile import CHAT, Hostile, bodies
from tests.inprocess import PERCEPTIBLE_SECONDS
from tests.processes import started

STREAMS = 16
STREAM_TOKENS = 7_000
PAUSE_SECONDS = 0.05  # between tokens
TRIES = 3
START_SECONDS = 60.0
HEALTH_SECONDS = 0.02
ANSWER_SECONDS = 60.0


@dataclass(frozen=True, order=True)
class Silence:
    """The longest wait of a client while a body was answered."""

    seconds: float
    whose: str
    body: str
    status: int


def measure(model: Path, data: Path, count: int, seed: int = 0) -> list[Silence]:
    """The longest waits of clients of a scripted server while `count` hostile bodies come in, longest first.

    A wait of `PERCEPTIBLE_SECONDS` is measured again, and the shortest counts, as the machine itself may stall.
    """
    port = free_port()
    flags = ["--model", model, "--port", port, "--data-dir", data, "--no-auth", "--pause", PAUSE_SECONDS]
    silences: list[Silence] = []
    with started([sys.executable, "-m", "tests.scripted_server", *map(str, flags)]), Clients(port) as clients:
        for hostile in bodies(count, Settings(model=str(model)).max_body_bytes, seed):
            tries: list[Silence] = []
            while len(tries) < TRIES and (not tries or tries[-1].seconds >= PERCEPTIBLE_SECONDS):
                clients.longest()
                status = send(port, hostile)
                tries.append(Silence(*clients.longest(), hostile.name, status))
            silences.append(min(tries))
    return sorted(silences, reverse=True)


class Clients:
    """16 clients that read streams, and one that asks for `/health`, on their own event loop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._last: dict[int, float] = {}
        self._longest = (0.0, "")
        self._started: Future[None] = Future()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)

    def __enter__(self) -> "Clients":
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self._port)):
                break
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.1)
        self._thread.start()
        self._started.result(ANSWER_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(ANSWER_SECONDS)

    def longest(self) -> tuple[float, str]:
        """The longest wait since the last call, in seconds, and whose it was; returns when all have got something."""
        return asyncio.run_coroutine_threadsafe(self._settle(), self._loop).result(ANSWER_SECONDS)

    async def _settle(self) -> tuple[float, str]:
        asked = time.monotonic()
        while len(self._last) <= STREAMS or min(self._last.values()) <= asked:
            await asyncio.sleep(0.01)
        longest, self._longest = self._longest, (0.0, "")
        return longest

    def _heard(self, client: int) -> None:
        now = time.monotonic()
        if client in self._last:
            self._longest = max(self._longest, (now - self._last[client], self._name(client)))
        self._last[client] = now

    @staticmethod
    def _name(client: int) -> str:
        return "a stream" if client < STREAMS else "/health"

    async def _run(self) -> None:
        self._ended = asyncio.Event()
        tasks = [asyncio.create_task(self._stream(client)) for client in range(STREAMS)]
        tasks.append(asyncio.create_task(self._health(STREAMS)))
        while len(self._last) <= STREAMS:
            await asyncio.sleep(0.01)
            for task in tasks:
                if task.done():
                    task.result()
        self._longest = (0.0, "")
        self._started.set_result(None)
        await self._ended.wait()
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _stream(self, client: int) -> None:
        body = json.dumps({**CHAT, "max_tokens": STREAM_TOKENS, "stream": True}).encode()
        while True:
            self._last.pop(client, None)
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(_head("POST", "/v1/chat/completions", len(body)) + body)
            while b"data: [DONE]" not in (piece := await reader.readline()):
                assert piece, "the stream ended early"
                if piece.startswith(b"data: "):
                    assert not piece.startswith(b'data: {"error"'), piece
                    self._heard(client)
            writer.close()

    async def _health(self, client: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while True:
            self._last[client] = time.monotonic()
            writer.write(_head("GET", "/health", 0))
            answer = await reader.readuntil(b'{"status":"ok"}')
            assert answer.startswith(b"HTTP/1.1 200"), answer
            self._heard(client)
            await asyncio.sleep(HEALTH_SECONDS)


def _head(method: str, path: str, length: int) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n".encode()


def send(port: int, hostile: Hostile) -> int:
    """Send a request; return the answer's status, or 0 if the server closed the connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(hostile.method, hostile.path, hostile.body, hostile.headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (ConnectionResetError, http.client.RemoteDisconnected):
        return 0
    finally:
        connection.close()
