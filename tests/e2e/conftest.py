"""One server with the real engine and the real SmolLM2 for all end-to-end tests, which use it through SDKs."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from openai.types.fine_tuning import FineTuningJob

from adapters.base import BaseModel
from demo import base, finetune
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
        """Register an adapter by upload."""
        files = [("file", (file.name, file.read_bytes())) for file in folder.iterdir() if file.suffix != ".md"]
        with self.http() as client:
            answer = client.post("/admin/adapters", data={"name": name}, files=files)
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="session")
def running(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("allowed")
    settings = {"max_cpu_loras": str(MAX_CPU_LORAS), "max_adapter_bytes": str(64 * 1024**2), "max_loras": "4"}
    settings["kv_cache_bytes"] = str(1024**3)  # less than the default, since three engines run here
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_PLUGINS", "")  # a user may have set this; our plug-in must be loaded anyway
        with serve(smollm2, tmp_path_factory.mktemp("data"), "--adapter-root", str(root), **settings) as server:
            server.wait("/ready")
            yield Running(server, root)


@pytest.fixture(scope="session")
def mistreated(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A second server, on the tiny model in fp32: many short jobs, kills, damage, a full disk."""
    settings = {"dtype": "float32", "max_loras": "2", "max_full_models": "1", "kv_cache_bytes": str(1024**3)}
    with serve(tiny, tmp_path_factory.mktemp("mistreated"), **settings) as server:
        server.wait("/ready")
        yield server


@pytest.fixture(scope="session")
def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=running.server.base_url, api_key=running.server.api_key, max_retries=0)


@pytest.fixture(scope="session")
def job(client: openai.OpenAI) -> FineTuningJob:
    """A job that learns tickets to JSON, with replay; run once for all tests."""
    return run_recipe(client, "structured-extraction", "Tickets v1")


def engines(server: Server) -> list[psutil.Process]:
    """vLLM's processes, oldest first."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    found = [child for child in children if "EngineCore" in "".join(child.cmdline())]
    return sorted(found, key=psutil.Process.create_time)


def run_recipe(client: openai.OpenAI, name: str, suffix: str) -> FineTuningJob:
    """Run a recipe as a user of the server would."""
    recipe = RECIPES[name]
    gate = {f"gate.{key}": str(value) for key, value in recipe.gate.model_dump(exclude_defaults=True).items()}
    return run_job(client, recipe.make(), recipe.method, suffix, gate)


def run_job(
    client: openai.OpenAI,
    rows: tuple[list[Line], list[Line]],
    method: dict[str, Any],
    suffix: str,
    metadata: dict[str, str] | None = None,
) -> FineTuningJob:
    """Run a job to its end, on rows to train on and rows held out."""
    files: list[str] = []
    for part in rows:
        content = "".join(json.dumps(row) + "\n" for row in part).encode()
        files.append(client.files.create(file=(f"{suffix}.jsonl", io.BytesIO(content)), purpose="fine-tune").id)
    kind = method["type"]
    wanted: Any = {"type": kind, kind: {key: value for key, value in method.items() if key != "type"}}
    job = client.fine_tuning.jobs.create(
        model=base.NAME,
        training_file=files[0],
        validation_file=files[1],
        suffix=suffix,
        seed=1,
        method=wanted,
        metadata=metadata or {},
    )
    return finetune.follow(client, job)


@pytest.fixture(scope="session")
def noise(running: Running, smollm2_base: BaseModel, make_lasting_adapter: MakeAdapter) -> list[str]:
    """Names of four registered adapters with random weights: as many as there are slots."""
    names = [f"ft:SmolLM2-135M-Instruct:test:noise:{seed}" for seed in range(4)]
    for seed, name in enumerate(names):
        rank = (4, 8, 16, 16)[seed]
        modules = (("q_proj", "v_proj"), ("o_proj", "up_proj", "gate_proj"), ("down_proj",), ("k_proj", "o_proj"))[seed]
        running.register(name, make_lasting_adapter(smollm2_base, seed=seed, rank=rank, scale=0.04, modules=modules))
    return names
