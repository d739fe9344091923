"""Registering, loading, evicting and removing adapters on the running engine."""

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from adapters.base import BaseModel
from tests.conftest import MakeAdapter
from tests.e2e.conftest import MAX_CPU_LORAS, Running

NAME = "ft:SmolLM2-135M-Instruct:test:adapter:1"


def ask(client: openai.OpenAI, model: str) -> str | None:
    completion = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Name a fruit."}], temperature=0, max_tokens=8
    )
    return completion.choices[0].message.content


def test_by_path_load_on_first_request_list_and_remove(
    running: Running, client: openai.OpenAI, smollm2_base: BaseModel, make_adapter: MakeAdapter
) -> None:
    running.register(NAME, make_adapter(smollm2_base, seed=40, scale=0.05))
    with running.http() as http:
        states = {entry["name"]: entry["state"] for entry in http.get("/admin/adapters").json()["data"]}
        assert states[NAME] == "registered"
        assert ask(client, NAME) != ask(client, smollm2_base.name)
        states = {entry["name"]: entry["state"] for entry in http.get("/admin/adapters").json()["data"]}
        assert states[NAME] == "ready"
        model = client.models.retrieve(NAME)
        assert (model.id, model.owned_by, model.object) == (NAME, "personal", "model")
        assert f'model="{NAME}"' in running.server.get("/metrics").text

        assert http.delete(f"/admin/adapters/{NAME}").json()["deleted"] is True
        assert http.delete(f"/admin/adapters/{NAME}").status_code == 404
        assert f'model="{NAME}"' not in running.server.get("/metrics").text
    with pytest.raises(openai.NotFoundError):
        ask(client, NAME)
    assert NAME not in [model.id for model in client.models.list()]


def test_by_upload_under_a_name_of_old_and_with_slashes(
    running: Running, client: openai.OpenAI, smollm2_base: BaseModel, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter(smollm2_base, seed=41)
    for name in ("ft:gpt-3.5-turbo-0613:my-org:custom-model-v1", "ft:Qwen/Qwen3-8B:my-org::abc"):
        files = [("file", (file.name, file.read_bytes())) for file in folder.iterdir()]
        with running.http() as http:
            answer = http.post("/admin/adapters", data={"name": name}, files=files)
        assert answer.status_code == 200, answer.text
        assert client.models.retrieve(name).id == name
        assert ask(client, name)
        assert client.models.delete(name).deleted


def test_the_manifest_travels_with_the_adapter(
    running: Running, client: openai.OpenAI, smollm2_base: BaseModel, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter(smollm2_base, seed=42)
    (folder / "manifest.json").write_text('{"sampling": {"temperature": 0, "max_completion_tokens": 3}}')
    running.register(NAME, folder)
    short = client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "Name a fruit."}])
    assert short.usage is not None
    assert short.usage.completion_tokens <= 3
    client.models.delete(NAME)


def _narrow(tensors: dict[str, Any]) -> None:
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    tensors[key] = tensors[key][:, :8].contiguous()


def test_what_must_not_be_served_is_refused_by_name(
    running: Running, client: openai.OpenAI, smollm2_base: BaseModel, tiny_base: BaseModel, make_adapter: MakeAdapter
) -> None:
    cases = {
        "max-lora-rank": make_adapter(smollm2_base, rank=32),
        "shape": make_adapter(smollm2_base, edit=_narrow),
        "runs 'SmolLM2-135M-Instruct'": make_adapter(tiny_base),
        "not supported": make_adapter(smollm2_base, config={"use_dora": True}),
    }
    with running.http() as http:
        for complaint, folder in cases.items():
            target = running.adapter_root / folder.name
            folder.rename(target)
            answer = http.post("/admin/adapters", json={"name": NAME, "path": str(target)})
            assert answer.status_code == 400, answer.text
            assert complaint in answer.json()["error"]["message"]
            assert answer.json()["error"]["code"] == "invalid_adapter"
        for path in ("/etc", f"{running.adapter_root}/../..", "relative", str(running.adapter_root / "nothing-there")):
            answer = http.post("/admin/adapters", json={"name": NAME, "path": path})
            assert answer.status_code == 400, path
        upload = [("file", ("../../evil", b"x"))]
        assert http.post("/admin/adapters", data={"name": NAME}, files=upload).status_code == 400
        assert http.post("/admin/adapters", json={"name": "no-prefix", "path": "/x"}).status_code == 400
        assert http.post("/admin/adapters", json={"name": NAME}).json()["error"]["param"] == "path"
        assert http.post("/admin/adapters", content=bytes(66 * 1024**2)).status_code == 413
    assert NAME not in [model.id for model in client.models.list()]
    assert ask(client, smollm2_base.name)


def test_more_adapters_than_memory_holds_and_concurrent_removal(
    running: Running, client: openai.OpenAI, smollm2_base: BaseModel, make_adapter: MakeAdapter
) -> None:
    """The least recently used one goes; everyone gets their own answer, also while adapters are removed under them."""
    names = [f"ft:SmolLM2-135M-Instruct:test:many:{seed}" for seed in range(MAX_CPU_LORAS + 4)]
    for seed, name in enumerate(names):
        running.register(name, make_adapter(smollm2_base, seed=100 + seed, rank=2, scale=0.2))
    asynchronous = openai.AsyncOpenAI(base_url=running.server.base_url, api_key=running.server.api_key)

    async def next_token(name: str) -> dict[str, float]:
        """The most probable first tokens and their log-probabilities."""
        completion = await asynchronous.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": "Name a fruit."}],
            max_tokens=1,
            logprobs=True,
            top_logprobs=10,
        )
        logprobs = completion.choices[0].logprobs
        assert logprobs is not None
        return {token.token: token.logprob for token in (logprobs.content or [])[0].top_logprobs}

    def distance(one: dict[str, float], other: dict[str, float]) -> float:
        return max(abs(one.get(token, -99) - other.get(token, -99)) for token in list(one)[:3])

    async def check() -> None:
        async with asynchronous:
            alone = [await next_token(name) for name in names]
            removed = asyncio.gather(*(next_token(names[0]) for _ in range(4)), return_exceptions=True)
            kept = asyncio.gather(*(next_token(name) for name in names[1:] * 3))
            await asyncio.sleep(0.2)
            await asynchronous.models.delete(names[0])
            for index, got in enumerate(await kept):
                nearest = min(alone, key=lambda other, got=got: distance(other, got))
                assert nearest is alone[1 + index % (len(names) - 1)], "somebody else's answer"
            for answer in await removed:
                assert isinstance(answer, openai.NotFoundError | dict), answer

    asyncio.run(check())
    with running.http() as http:
        ready = [entry for entry in http.get("/admin/adapters").json()["data"] if entry["state"] == "ready"]
    assert len(ready) <= MAX_CPU_LORAS
    for name in names[1:]:
        client.models.delete(name)


def test_files_vanish_with_the_last_name(running: Running, smollm2_base: BaseModel, make_adapter: MakeAdapter) -> None:
    running.register(NAME, make_adapter(smollm2_base, seed=43))
    with running.http() as http:
        entry = next(entry for entry in http.get("/admin/adapters").json()["data"] if entry["name"] == NAME)
        folder = running.server.log.parent / "adapters" / entry["digest"]
        assert Path(folder).is_dir()
        http.delete(f"/admin/adapters/{NAME}")
        assert not Path(folder).exists()
