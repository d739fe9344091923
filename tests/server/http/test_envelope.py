"""What every answer has, also the one nobody meant to give."""

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.types import Receive, Scope, Send

from server.http import statuses
from server.http.entry.bodies import Bodies
from server.http.envelope import Envelope
from server.state.keys import Key


def client(app: object) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")  # pyright: ignore[reportArgumentType]


@pytest.mark.anyio
async def test_an_unexpected_error_is_openais_500_without_its_text() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("/secret/path")

    async with client(Envelope(broken)) as http:
        answer = await http.get("/")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["openai-version"]


@pytest.mark.anyio
async def test_bodies_over_the_limit_are_refused_whether_announced_or_not() -> None:
    from starlette.middleware.exceptions import ExceptionMiddleware

    app = FastAPI()
    statuses.install(app)
    app.add_middleware(Bodies, max_body_bytes=10, max_items=10, max_buffered_bytes=100, uploads={"/upload": 100})
    app.add_middleware(ExceptionMiddleware, handlers=app.exception_handlers)

    @app.post("/{path}")
    async def size(path: str, request: Request) -> int:
        return len(await request.body())

    async def chunks(count: int):
        for _ in range(count):
            yield b"x" * 6

    async def keyed(scope: Scope, receive: Receive, send: Send) -> None:
        key = Key(id="key", name="key", hint="", admin=False, created_at=0)
        await app({**scope, "state": {"caller": key}}, receive, send)

    async with client(keyed) as http:
        assert (await http.post("/other", content=b"x" * 10)).json() == 10
        assert (await http.post("/other", content=b"x" * 11)).status_code == 413
        assert (await http.post("/other", content=chunks(2))).status_code == 413
        form = {"content-type": "multipart/form-data; boundary=x"}
        assert (await http.post("/upload", content=chunks(2), headers=form)).json() == 12
        assert (await http.post("/upload", content=chunks(2))).status_code == 413, "JSON is read into memory"
        assert (await http.post("/other", content=chunks(2), headers=form)).status_code == 413
