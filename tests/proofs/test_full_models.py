"""A full model's own engine dies."""

import time
from pathlib import Path
from typing import Any

import openai
from openai.types.fine_tuning import FineTuningJob

from demo.server import serve
from tests.e2e.conftest import engines
from tests.e2e.test_platform import BASE, CHAT, QUICK, run, served_as_trained

SECONDS = 60.0


def test_full_models(figures: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    settings = {"dtype": "float32", "max_loras": "1", "max_full_models": "1", "kv_cache_bytes": str(1024**3)}
    with serve(tiny, tmp_path / "data", **settings) as server:
        server.wait("/ready")
        client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0, timeout=120)
        hyperparameters = {**QUICK, "weights": "full", "keep": "model", "learning_rate_multiplier": 3}
        method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
        job: FineTuningJob = run(client, CHAT, method)
        served_as_trained(client, server, tiny, job)
        base, own = engines(server)  # oldest first
        own.kill()
        deadline = time.monotonic() + SECONDS
        while server.get(f"/admin/adapters/{job.fine_tuned_model}").json()["state"] != "registered":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert client.chat.completions.create(model=BASE, messages=[{"role": "user", "content": "Hi"}], max_tokens=2)
        started = time.monotonic()
        served_as_trained(client, server, tiny, job)
        figures["seconds until it answered again"] = round(time.monotonic() - started, 1)
        assert engines(server)[0] == base
