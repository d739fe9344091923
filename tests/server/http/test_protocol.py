"""The web server's protocol, byte by byte over a socket: whatever upgrade is offered, bodies arrive."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from fastapi import FastAPI, Request

from server.http import protocol
from server.http.protocol import MAX_HEAD_BYTES, HttpProtocol

OFFERED = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app = FastAPI()

    @app.post("/")
    async def echo(request: Request) -> dict[str, str]:
        return {"body": (await request.body()).decode()}

    server = uvicorn.Server(uvicorn.Config(app, port=0, http=HttpProtocol, log_level="critical", timeout_keep_alive=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def post(body: bytes, headers: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), headers, body)


def exchange(port: int, *parts: bytes, answers: int) -> str:
    """Send the parts one after the other; what comes back until so many bodies have come, or the connection ends."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.05)
        while received.count(b'"}') < answers and (more := connection.recv(65536)):
            received += more
    return received.decode()


@pytest.mark.parametrize("headers", [b"", OFFERED, OFFERED.lower()])
@pytest.mark.parametrize("cut", [None, 1, 30, -5])
def test_a_body_arrives_however_its_request_is_cut(port: int, headers: bytes, cut: int | None) -> None:
    request = post(b"hello", headers)
    parts = (request,) if cut is None else (request[:cut], request[cut:])
    assert '{"body":"hello"}' in exchange(port, *parts, answers=1)


def test_a_connection_is_kept_through_plain_requests_and_offers(port: int) -> None:
    requests = [post(b"one"), post(b"two", OFFERED), post(b"three"), post(b"four", OFFERED)]
    answer = exchange(port, *requests, answers=4)
    assert [answer.count(f'{{"body":"{body}"}}') for body in ("one", "two", "three", "four")] == [1] * 4


def test_requests_sent_at_once_are_answered_in_turn(port: int) -> None:
    answer = exchange(port, post(b"one") + post(b"two") + post(b"three"), answers=3)
    assert answer.index("one") < answer.index("two") < answer.index("three")


def test_a_body_that_looks_like_an_offer_is_a_body(port: int) -> None:
    text = b"a\r\n\r\nUpgrade: h2c\r\n\r\nb"
    request = post(text)
    middle = request.index(b"a\r\n\r\nUp")
    answer = exchange(port, request[:middle], request[middle:], post(b"next"), answers=2)
    assert "Upgrade: h2c" in answer
    assert '{"body":"next"}' in answer


def test_a_head_without_end_is_refused(port: int) -> None:
    answer = exchange(port, b"POST / HTTP/1.1\r\nX: " + b"x" * (MAX_HEAD_BYTES + 1), answers=1)
    assert answer.startswith("HTTP/1.1 400")
    assert "head is larger than" in answer


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n"


@pytest.mark.parametrize("before", [post(b"one"), post(b"one", OFFERED), CHUNKED])
@pytest.mark.parametrize("answered", [True, False])
def test_what_follows_a_request_is_bounded_too(port: int, before: bytes, answered: bool) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(before)
        if answered and before is not CHUNKED:
            assert b"one" in connection.recv(65536)
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"POST / HTTP/1.1\r\nX: ")
            for _ in range(100):
                connection.sendall(b"x" * 65536)
        received = b""
        with contextlib.suppress(ConnectionError):
            while more := connection.recv(65536):
                received += more
        assert received.count(b"HTTP/1.1") <= 2


def test_many_requests_at_once_are_answered_one_by_one(port: int) -> None:
    many = 5_000
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        sending = threading.Thread(target=connection.sendall, args=(post(b"one") * many,))
        sending.start()
        while received.count(b'{"body":"one"}') < many:
            received += connection.recv(1 << 20)
        sending.join()
    assert received.count(b"HTTP/1.1 200") == many


def test_a_body_that_is_refused_has_to_come_too(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
        received = b""
        while more := connection.recv(65536):
            received += more
        assert received.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("before", [b"", post(b"one"), post(b"one", OFFERED)])
@pytest.mark.parametrize("said", [b"", b"POST / HTTP/1.1\r\nHost: x\r\n"])
def test_who_says_nothing_is_hung_up_on(port: int, before: bytes, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        if before:
            connection.sendall(before)
            assert connection.recv(65536)
        connection.sendall(said)
        assert connection.recv(1) == b""


def test_connections_leave_descriptors_for_the_rest(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as kept:
        kept.sendall(post(b"one"))
        assert kept.recv(65536)
        monkeypatch.setattr(protocol, "SHARE", 0)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as refused:
            assert refused.recv(1) == b""
        kept.sendall(post(b"three"))
        assert kept.recv(65536)
