"""Aliases, canaries, pins, unloading and deletion on the running engine, alone and all at once."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from adapters.base import BaseModel
from tests.conftest import MakeAdapter
from tests.e2e.conftest import MAX_CPU_LORAS, Running

ALIAS = "ft:SmolLM2-135M-Instruct:acme:support"
V1, V2, V3 = (f"{ALIAS}:v{number}" for number in (1, 2, 3))
LONG: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell a story."}], "logit_bias": {"2": -100}}


@pytest.fixture
def http(running: Running) -> Iterator[httpx.Client]:
    with running.http() as client:
        yield client


@pytest.fixture
def versions(
    running: Running, http: httpx.Client, smollm2_base: BaseModel, make_adapter: MakeAdapter
) -> Iterator[None]:
    for seed, name in enumerate((V1, V2, V3)):
        running.register(name, make_adapter(smollm2_base, seed=200 + seed, rank=2, scale=0.1))
    yield
    http.delete(f"/admin/adapters/aliases/{ALIAS}")
    for name in (V1, V2, V3):
        http.delete(f"/admin/adapters/{name}?force=true")


def point(http: httpx.Client, **weights: int) -> dict[str, Any]:
    answer = http.put(f"/admin/adapters/aliases/{ALIAS}", json={"weights": weights})
    assert answer.status_code == 200, answer.text
    return answer.json()


def answered_by(client: openai.OpenAI, user: str | None = None) -> str:
    return client.chat.completions.create(
        model=ALIAS, messages=[{"role": "user", "content": "Hi"}], max_tokens=1, user=user or openai.omit
    ).model


def state(http: httpx.Client, name: str) -> str:
    return http.get(f"/admin/adapters/{name}").json()["state"]


@pytest.mark.usefixtures("versions")
def test_an_alias_moves_while_streams_end_as_they_began(client: openai.OpenAI, http: httpx.Client) -> None:
    assert point(http, v1=100)["weights"] == {V1: 100}
    assert client.models.retrieve(ALIAS).id == ALIAS
    stream = client.chat.completions.create(model=ALIAS, stream=True, max_tokens=60, **LONG)
    models = [next(stream).model]
    assert point(http, v2=100)["previous"] == {V1: 100}
    assert answered_by(client) == V2
    chunks = list(stream)
    models += [chunk.model for chunk in chunks]
    assert set(models) == {V1}
    assert chunks[-1].choices[0].finish_reason == "length"

    rolled_back = http.post(f"/admin/adapters/aliases/{ALIAS}/rollback").json()
    assert rolled_back["weights"] == {V1: 100}
    assert answered_by(client) == V1
    assert http.get(f"/admin/adapters/{V1}").json()["aliases"] == [ALIAS]


@pytest.mark.usefixtures("versions")
def test_a_canary_gets_its_share_and_sticks_to_its_users(client: openai.OpenAI, http: httpx.Client) -> None:
    point(http, v1=70, v2=30)
    users = [f"user-{number}" for number in range(40)]
    first = {user: answered_by(client, user) for user in users}
    assert {user: answered_by(client, user) for user in users} == first
    assert 4 <= Counter(first.values())[V2] <= 22
    assert set(first.values()) == {V1, V2}


@pytest.mark.usefixtures("versions")
def test_deleting_needs_force_while_an_alias_points_there(client: openai.OpenAI, http: httpx.Client) -> None:
    point(http, v3=1)
    refused = http.delete(f"/admin/adapters/{V3}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "adapter_in_use")
    assert answered_by(client) == V3
    assert http.delete(f"/admin/adapters/{V3}?force=true").status_code == 200
    with pytest.raises(openai.NotFoundError):
        answered_by(client)
    assert http.get(f"/admin/adapters/aliases/{ALIAS}").status_code == 404


@pytest.mark.usefixtures("versions")
def test_load_unload_and_drain(client: openai.OpenAI, http: httpx.Client) -> None:
    assert state(http, V1) == "registered"
    assert http.post(f"/admin/adapters/{V1}/load").json()["state"] == "ready"
    stream = client.chat.completions.create(model=V1, stream=True, max_tokens=80, **LONG)
    next(stream)
    answers: list[httpx.Response] = []
    unloading = threading.Thread(target=lambda: answers.append(http.post(f"/admin/adapters/{V1}/unload")))
    unloading.start()
    assert len(list(stream)) > 60, "the stream ends as if nothing had happened"
    unloading.join(30)
    assert answers[0].json()["state"] == "registered"
    assert client.chat.completions.create(model=V1, max_tokens=1, **LONG).model == V1
    assert state(http, V1) == "ready"


@pytest.mark.usefixtures("versions")
def test_pins_leave_room_for_a_batch(client: openai.OpenAI, http: httpx.Client, noise: list[str]) -> None:
    """Five fit into memory and a batch takes four: one may be pinned, and it stays whatever else is asked for."""
    assert MAX_CPU_LORAS == 5
    assert http.post(f"/admin/adapters/{V1}/pin").json()["pinned"] is True
    refused = http.post(f"/admin/adapters/{V2}/pin")
    assert refused.status_code == 400
    assert "max_cpu_loras" in refused.json()["error"]["message"]
    for name in (*noise, V2, V3):
        client.chat.completions.create(model=name, max_tokens=1, **LONG)
    assert state(http, V1) == "ready"
    assert http.post(f"/admin/adapters/{V1}/unload").status_code == 400
    assert http.post(f"/admin/adapters/{V1}/unpin").json()["pinned"] is False
    assert http.post(f"/admin/adapters/{V1}/unload").json()["state"] == "registered"


@pytest.mark.usefixtures("versions")
def test_everything_at_once(running: Running, http: httpx.Client) -> None:
    """Requests, moves, loads, unloads and pins of the same three adapters by 12 callers: each gets a clear answer."""
    point(http, v1=1)
    headers = {"Authorization": f"Bearer {running.server.api_key}"}
    root = running.server.base_url.removesuffix("/v1")
    chat = {"model": ALIAS, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}

    async def caller(http: httpx.AsyncClient, number: int) -> list[int]:
        statuses: list[int] = []
        for turn in range(8):
            name = (V1, V2, V3)[(number + turn) % 3]
            action = (number * 3 + turn) % 6
            if action == 0:
                answer = await http.put(f"/admin/adapters/aliases/{ALIAS}", json={"weights": {name: 1}})
            elif action in (1, 2, 3):
                path = ("load", "unload", "pin")[action - 1]
                answer = await http.post(f"/admin/adapters/{name}/{path}")
                if path == "pin":
                    await http.post(f"/admin/adapters/{name}/unpin")
            else:
                answer = await http.post("/v1/chat/completions", json=chat)
                assert answer.status_code == 200, answer.text
            statuses.append(answer.status_code)
        return statuses

    async def check() -> set[int]:
        async with httpx.AsyncClient(base_url=root, headers=headers, timeout=120) as http:
            every = await asyncio.gather(*(caller(http, number) for number in range(12)))
            return {status for statuses in every for status in statuses}

    assert asyncio.run(check()) <= {200, 400}
    for name in (V1, V2, V3):
        assert http.get(f"/admin/adapters/{name}").json()["pinned"] is False
