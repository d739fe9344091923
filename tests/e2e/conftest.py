"""One server on the real engine with the real SmolLM2, for all end-to-end tests; a user's view of it through SDKs."""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from adapters.base import BaseModel
from demo import base, conformance, finetune
from demo.recipes import RECIPES, Line
from demo.server import Server, serve
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

    def upload(self, name: str, folder: Path) -> None:
        """Register a job's adapter by upload."""
        files = [("file", (file.name, file.read_bytes())) for file in folder.iterdir() if file.suffix != ".md"]
        with self.http() as client:
            answer = client.post("/admin/adapters", data={"name": name}, files=files)
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
    """Tickets to JSON, with replay, run once for all tests."""
    return run_recipe(client, "structured-extraction", "Tickets v1")


@pytest.fixture(scope="session")
def voice(client: openai.OpenAI, job: FineTuningJob) -> FineTuningJob:
    """A brand's voice with retrieved facts; after the other, for one job runs at a time."""
    return run_recipe(client, "brand-voice", "voice")


@pytest.fixture(scope="session")
def caller(client: openai.OpenAI, voice: FineTuningJob) -> FineTuningJob:
    """An adapter that calls tools, for the tests that LangChain4j publishes."""
    hyperparameters = {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 3}
    method = {"type": "supervised", "hyperparameters": hyperparameters}
    return run_job(client, conformance.rows(), method, "caller")


def run_recipe(client: openai.OpenAI, name: str, suffix: str) -> FineTuningJob:
    """A recipe as a user of the server would run it."""
    recipe = RECIPES[name]
    return run_job(client, recipe.make(), recipe.method, suffix)


def run_job(
    client: openai.OpenAI, rows: tuple[list[Line], list[Line]], method: dict[str, Any], suffix: str
) -> FineTuningJob:
    """A job on rows to train on and rows held out, to its end."""
    files: list[str] = []
    for part in rows:
        content = "".join(json.dumps(row) + "\n" for row in part).encode()
        files.append(client.files.create(file=(f"{suffix}.jsonl", io.BytesIO(content)), purpose="fine-tune").id)
    kind = method["type"]
    wanted: Any = {"type": kind, kind: {key: value for key, value in method.items() if key != "type"}}
    job = client.fine_tuning.jobs.create(
        model=base.NAME, training_file=files[0], validation_file=files[1], suffix=suffix, seed=1, method=wanted
    )
    return finetune.follow(client, job)


@pytest.fixture(scope="session")
def noise(running: Running, smollm2_base: BaseModel, make_lasting_adapter: MakeAdapter) -> list[str]:
    """Four registered adapters of random weights: as many as there are slots."""
    names = [f"ft:SmolLM2-135M-Instruct:test:noise:{seed}" for seed in range(4)]
    for seed, name in enumerate(names):
        rank = (4, 8, 16, 16)[seed]
        modules = (("q_proj", "v_proj"), ("o_proj", "up_proj", "gate_proj"), ("down_proj",), ("k_proj", "o_proj"))[seed]
        running.register(name, make_lasting_adapter(smollm2_base, seed=seed, rank=rank, scale=0.04, modules=modules))
    return names
