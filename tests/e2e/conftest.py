"""One server on the real engine with the real SmolLM2, for all end-to-end tests; a user's view of it through SDKs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from adapters.base import BaseModel
from demo import base, finetune
from demo.server import Server, serve
from demo.tasks import TICKETS
from tests.conftest import MakeAdapter

MAX_CPU_LORAS = 5
BF16_NATS = 0.3  # logits around 16 are an eighth apart in bf16


@dataclass(frozen=True)
class Running:
    """The server under test."""

    server: Server
    adapter_root: Path

    def http(self, key: str | None = None) -> httpx.Client:
        """A plain client of the server's root."""
        headers = {"Authorization": f"Bearer {key or self.server.api_key}"}
        return httpx.Client(base_url=self.server.base_url.removesuffix("/v1"), headers=headers, timeout=120)

    def register(self, name: str, folder: Path) -> None:
        """Register an adapter from the allowed folder."""
        target = self.adapter_root / folder.name
        if not target.exists():
            folder.rename(target)
        with self.http() as client:
            answer = client.post("/admin/adapters", json={"name": name, "path": str(target)})
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="session")
def running(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("allowed")
    os.environ["TUNEPORT_MAX_CPU_LORAS"] = str(MAX_CPU_LORAS)
    os.environ["VLLM_PLUGINS"] = ""  # as somebody might have it; ours must be loaded all the same
    os.environ["TUNEPORT_MAX_ADAPTER_BYTES"] = str(64 * 1024**2)
    with serve(smollm2, tmp_path_factory.mktemp("data"), "--adapter-root", str(root), "--max-loras", "4") as server:
        server.wait("/ready")
        yield Running(server, root)


@pytest.fixture(scope="session")
def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=running.server.base_url, api_key=running.server.api_key, max_retries=0)


@pytest.fixture(scope="session")
def job(client: openai.OpenAI) -> FineTuningJob:
    """The demo's job, with replay, run once for all tests."""
    train, _ = TICKETS.rows(finetune.TRAINING_ROWS, 1)
    return finetune.follow(client, finetune.start(client, base.NAME, "Tickets v1", train))


@pytest.fixture(scope="session")
def noise(running: Running, smollm2_base: BaseModel, make_lasting_adapter: MakeAdapter) -> list[str]:
    """Four registered adapters of random weights: as many as there are slots."""
    names = [f"ft:SmolLM2-135M-Instruct:test:noise:{seed}" for seed in range(4)]
    for seed, name in enumerate(names):
        rank = (4, 8, 16, 16)[seed]
        modules = (("q_proj", "v_proj"), ("o_proj", "up_proj", "gate_proj"), ("down_proj",), ("k_proj", "o_proj"))[seed]
        running.register(name, make_lasting_adapter(smollm2_base, seed=seed, rank=rank, scale=0.04, modules=modules))
    return names
