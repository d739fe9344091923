"""A server to mistreat: its engine killed, its files damaged, its disk full, stopped while it streams."""

import asyncio
import resource
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from adapters.base import BaseModel
from adapters.files.validate import WEIGHTS
from demo.server import Server
from tests.conftest import MakeAdapter
from tests.e2e.conftest import engines

NAMES = [f"ft:tiny:test:alive:{number}" for number in range(2)]
ENDLESS: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell a story."}], "logit_bias": {"2": -100}}
RESTART_SECONDS = 180


@pytest.fixture(scope="module")
def server(mistreated: Server, tiny_base: BaseModel, make_lasting_adapter: MakeAdapter) -> Server:
    for seed, name in enumerate(NAMES):
        upload(mistreated, name, make_lasting_adapter(tiny_base, seed=seed, rank=2)).raise_for_status()
    return mistreated


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0, timeout=120)


def upload(server: Server, name: str, folder: Path) -> httpx.Response:
    files = [("file", (file.name, file.read_bytes())) for file in folder.iterdir()]
    return httpx.post(
        server.base_url.removesuffix("/v1") + "/admin/adapters",
        headers={"Authorization": f"Bearer {server.api_key}"},
        data={"name": name},
        files=files,
        timeout=60,
    )


def ask(client: openai.OpenAI, model: str) -> str | None:
    answer = client.chat.completions.create(model=model, max_tokens=4, temperature=0, **ENDLESS)
    return answer.choices[0].message.content


def adapter(server: Server, name: str) -> dict[str, Any]:
    return server.get(f"/admin/adapters/{name}").json()


def test_files_of_a_loaded_adapter_vanish(
    server: Server, client: openai.OpenAI, tiny_base: BaseModel, make_adapter: MakeAdapter
) -> None:
    name = "ft:tiny:test:alive:vanishing"
    source = make_adapter(tiny_base, seed=7, rank=2)
    upload(server, name, source).raise_for_status()
    before = ask(client, name)
    stored = server.log.parent / "adapters" / adapter(server, name)["digest"] / WEIGHTS
    stored.chmod(0o644)
    for damage in (lambda: stored.write_bytes(stored.read_bytes()[:-8] + bytes(8)), stored.unlink):
        damage()
        assert ask(client, name) == before, "it is in memory"
        client.post(f"/../admin/adapters/{name}/unload", cast_to=object)
        with pytest.raises(openai.InternalServerError) as refused:
            ask(client, name)
        assert refused.value.code == "adapter_damaged"
        assert adapter(server, name)["state"] == "failed"
        assert "register the same adapter again" in adapter(server, name)["error"]
        assert ask(client, NAMES[0]), "the others are served"
        upload(server, name, source).raise_for_status()
        assert ask(client, name) == before


def test_a_full_disk(server: Server, client: openai.OpenAI, tiny_base: BaseModel, make_adapter: MakeAdapter) -> None:
    """The kernel lets the server write no file beyond 64 KB, as if the disk were full."""
    name = "ft:tiny:test:alive:big"
    source = make_adapter(tiny_base, seed=8, rank=16, modules=("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))
    before = {path for path in (server.log.parent / "adapters").rglob("*") if path.is_file()}
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
    try:
        refused = upload(server, name, source)
        assert refused.status_code == 507
        assert refused.json()["error"]["code"] == "insufficient_storage"
        assert ask(client, NAMES[0])
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert {path for path in (server.log.parent / "adapters").rglob("*") if path.is_file()} == before
    assert not list(server.log.parent.glob("upload-*"))
    upload(server, name, source).raise_for_status()
    assert ask(client, name)


def test_the_engine_is_killed_while_32_requests_run(server: Server) -> None:
    (victim,) = engines(server)

    async def check() -> None:
        async with openai.AsyncOpenAI(
            base_url=server.base_url, api_key=server.api_key, max_retries=0, timeout=120
        ) as client:
            streaming = [asyncio.Event() for _ in range(16)]

            async def plain(model: str) -> str | None:
                with pytest.raises(openai.InternalServerError) as refused:
                    await client.chat.completions.create(model=model, max_tokens=2000, **ENDLESS)
                assert refused.value.status_code == 503
                return refused.value.code

            async def stream(model: str, begun: asyncio.Event) -> str | None:
                chunks = await client.chat.completions.create(model=model, max_tokens=2000, stream=True, **ENDLESS)

                async def read() -> None:
                    async for _ in chunks:
                        begun.set()

                with pytest.raises(openai.APIError) as broken:
                    await read()
                return broken.value.code

            requests = [asyncio.create_task(plain(name)) for name in NAMES * 8]
            requests += [asyncio.create_task(stream(*one)) for one in zip(NAMES * 8, streaming, strict=True)]
            async with asyncio.timeout(60):
                await asyncio.gather(*(begun.wait() for begun in streaming))
            victim.kill()
            async with asyncio.timeout(30):
                assert await asyncio.gather(*requests) == ["engine_unavailable"] * 32
            await client.close()

    asyncio.run(check())
    assert server.get("/ready").status_code == 503
    assert server.get("/ready").json()["status"] == "restarting"
    with openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            ask(client, NAMES[0])
        assert (refused.value.status_code, refused.value.code) == (503, "engine_unavailable")
        deadline = time.monotonic() + RESTART_SECONDS
        while not (server.get("/ready").status_code == 200 and adapter(server, NAMES[0])["state"] == "ready"):
            assert time.monotonic() < deadline, server.log.read_text()[-3000:]
            time.sleep(0.5)
        assert all(ask(client, name) for name in NAMES)
    assert "tuneport_engine_deaths_total 1.0" in server.get("/metrics").text


@pytest.mark.last
def test_sigterm_lets_streams_end(server: Server) -> None:
    """The server is gone afterwards."""

    async def check() -> None:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:

            async def stream(started: asyncio.Event) -> str | None:
                reason = None
                chunks = await client.chat.completions.create(model=NAMES[0], max_tokens=100, stream=True, **ENDLESS)
                async for chunk in chunks:
                    started.set()
                    reason = chunk.choices[0].finish_reason
                return reason

            events = [asyncio.Event() for _ in range(8)]
            streams = [asyncio.create_task(stream(event)) for event in events]
            async with asyncio.timeout(60):
                await asyncio.gather(*(event.wait() for event in events))
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(1)
            with pytest.raises(openai.APIConnectionError):
                await client.with_options(timeout=5).models.list()
            assert await asyncio.gather(*streams) == ["length"] * 8

    processes = psutil.Process(server.process.pid).children(recursive=True)
    logged = len(server.log.read_text())
    asyncio.run(check())
    assert server.process.wait(30) == -signal.SIGTERM, "uvicorn ends by the signal it was sent, after its shutdown"
    assert "Traceback" not in server.log.read_text()[logged:]
    assert psutil.wait_procs(processes, 10)[1] == [], "the engine is gone too"
