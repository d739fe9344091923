"""Rate limits as a client sees them: headers with true figures, 429 with a time to come back."""

import httpx
import openai
import pytest
from fastapi import FastAPI, Request

from server.errors import EngineUnavailable
from server.http import statuses
from server.http.envelope import Envelope
from server.http.limits import RateLimits
from server.state.keys import Key


def client(limits: RateLimits) -> httpx.AsyncClient:
    app = FastAPI()
    statuses.install(app)

    @app.post("/{name}/{tokens}")
    async def admit(name: str, tokens: int, request: Request) -> None:
        key = Key(id=name, name=name, hint="", admin=False, created_at=0)
        await limits.count(key, request)
        await limits.admit(key, request, tokens)

    envelope = Envelope(app)
    return httpx.AsyncClient(transport=httpx.ASGITransport(envelope), base_url="http://test")


@pytest.mark.anyio
async def test_each_key_has_its_own_minute_and_hears_what_is_left() -> None:
    async with client(RateLimits(requests=3, tokens=100)) as http:
        answer = await http.post("/ann/40")
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-remaining-requests"] == "2"
        assert answer.headers["x-ratelimit-remaining-tokens"] == "60"
        assert 0 < float(answer.headers["x-ratelimit-reset-tokens"].removesuffix("s")) <= 120
        refused = await http.post("/ann/61")
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.json()["error"]["type"] == "tokens"
        assert refused.headers["x-ratelimit-remaining-tokens"] == "60", "what was refused is not counted"
        assert refused.headers["x-ratelimit-remaining-requests"] == "1", "but as a request"
        assert 1 <= int(refused.headers["retry-after"]) <= 120
        assert (await http.post("/ann/60")).status_code == 200
        assert (await http.post("/ann/0")).json()["error"]["type"] == "requests"
        assert (await http.post("/bob/100")).status_code == 200


@pytest.mark.anyio
async def test_the_sdk_waits_as_long_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("anyio.sleep", wait)
    async with client(RateLimits(requests=1, tokens=None)) as http:
        sdk = openai.AsyncOpenAI(base_url="http://test", api_key="x", http_client=http, max_retries=2)
        await sdk.post("/ann/1", cast_to=object)
        with pytest.raises(openai.RateLimitError) as raised:
            await sdk.post("/ann/1", cast_to=object)
    assert len(waited) == 2
    assert waited[1] == int(raised.value.response.headers["retry-after"])


@pytest.mark.anyio
async def test_the_sdk_asks_again_while_the_engine_is_down() -> None:
    app = FastAPI()
    statuses.install(app)
    calls: list[int] = []

    @app.post("/x")
    async def answer() -> dict[str, str]:
        calls.append(1)
        if len(calls) < 3:
            raise EngineUnavailable("starting")
        return {"status": "ok"}

    transport = httpx.ASGITransport(Envelope(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        sdk = openai.AsyncOpenAI(base_url="http://test", api_key="x", http_client=http, max_retries=2)
        assert await sdk.post("/x", cast_to=object) == {"status": "ok"}
    assert len(calls) == 3


@pytest.mark.anyio
async def test_without_limits_there_are_no_headers() -> None:
    async with client(RateLimits(requests=None, tokens=None)) as http:
        answer = await http.post("/ann/1000000")
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
