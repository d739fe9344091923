"""The two servers under test, stock vLLM and Tuneport, with the same weights, context and KV cache."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from demo.server import free_port, serve
from server.engine.vllm import PLUGIN

KV_CACHE_BYTES = 2 * 1024**3
MAX_MODEL_LEN = 2048
MAX_LORAS = 4
MAX_CPU_LORAS = 32
TIMEOUT_SECONDS = 300
STOP_SECONDS = 30
STOCK, TUNEPORT = "stock vLLM", "tuneport"


@dataclass(frozen=True)
class Target:
    """A server to measure; `model` is its name for the base."""

    name: str
    base_url: str
    api_key: str
    model: str
    started_seconds: float
    pid: int

    def register(self, name: str, folder: Path) -> None:
        """Register an adapter, by Tuneport's admin endpoint or by stock vLLM's, which loads it at once."""
        root = self.base_url.removesuffix("/v1")
        if self.name == STOCK:
            url, body = f"{self.base_url}/load_lora_adapter", {"lora_name": name, "lora_path": str(folder.absolute())}
        else:
            url, body = f"{root}/admin/adapters", {"name": name, "path": str(folder.absolute())}
        headers = {"Authorization": f"Bearer {self.api_key}"}
        httpx.post(url, json=body, headers=headers, timeout=60).raise_for_status()


@contextlib.contextmanager
def stock(model: Path, log: Path, *, our_engine: bool = False) -> Iterator[Target]:
    """vLLM's own server as a user starts it, with LoRA and without our plug-in.

    Args:
        our_engine: with Tuneport's plug-in and engine settings, so that only the front end differs.
    """
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    flags = [
        "--enable-lora",
        "--max-loras",
        str(MAX_LORAS),
        "--max-lora-rank",
        "16",
        "--max-cpu-loras",
        str(MAX_CPU_LORAS),
    ]
    flags += [
        "--served-model-name",
        model.name,
        "--kv-cache-memory-bytes",
        str(KV_CACHE_BYTES),
        "--max-model-len",
        str(MAX_MODEL_LEN),
    ]
    environment = {"VLLM_PLUGINS": "", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1"}
    if our_engine:
        flags += ["--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor"]
        flags += ["--compilation-config", '{"custom_ops": ["all"]}', "--scheduling-policy", "priority"]
        environment |= {"VLLM_PLUGINS": PLUGIN, "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    base_url = f"http://127.0.0.1:{port}/v1"
    started = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, *flags], stdout=stream, stderr=stream, env={**os.environ, **environment}, start_new_session=True
        )
    try:
        while not _answers(base_url, "none", model.name):
            if process.poll() is not None or time.perf_counter() - started > TIMEOUT_SECONDS:
                raise RuntimeError(f"stock vLLM did not start; see {log}")
            time.sleep(0.1)
        yield Target(STOCK, base_url, "none", model.name, time.perf_counter() - started, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def tuneport(model: Path, data_dir: Path, **settings: str) -> Iterator[Target]:
    """Tuneport, with keys and metrics, but without a waiting trainer, as stock vLLM has none.

    Args:
        settings: more of them, as `serve` takes them.
    """
    settings |= {
        "kv_cache_bytes": str(KV_CACHE_BYTES),
        "max_cpu_loras": str(MAX_CPU_LORAS),
        "max_loras": str(MAX_LORAS),
        "max_model_len": str(MAX_MODEL_LEN),
        "warm_trainer": "false",
    }
    started = time.perf_counter()
    with serve(model, data_dir, "--adapter-root", str(data_dir.absolute()), **settings) as server:
        while not _answers(server.base_url, server.api_key, model.name):
            if server.process.poll() is not None or time.perf_counter() - started > TIMEOUT_SECONDS:
                raise RuntimeError(f"tuneport did not start; see {server.log}")
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        yield Target(TUNEPORT, server.base_url, server.api_key, model.name, seconds, server.process.pid)


def _answers(base_url: str, api_key: str, model: str) -> bool:
    """Whether the server answers a chat, which proves that it is ready."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    try:
        answer = httpx.post(
            f"{base_url}/chat/completions", json=body, headers={"Authorization": f"Bearer {api_key}"}, timeout=60
        )
    except httpx.TransportError:
        return False
    return answer.status_code == 200
