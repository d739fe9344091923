"""Bases of other families through the whole platform: tuned, served as trained, stopped where they stop."""

from pathlib import Path
from typing import Any

import openai

from demo.server import serve
from tests.e2e.test_platform import CITIES, run, served_as_trained
from tests.families import FAMILIES, Family, save

HEAD = 32  # vLLM's attention on CPUs takes heads of 32 and more
ANSWER = "No."
ROWS = [
    {"messages": [{"role": "user", "content": f"Is {city} far?"}, {"role": "assistant", "content": ANSWER}]}
    for city in CITIES
]
METHOD = {
    "type": "supervised",
    "supervised": {"hyperparameters": {"n_epochs": 50, "batch_size": 4, "learning_rate_multiplier": 20}},
}


def test_families(figures: dict[str, Any], tmp_path: Path) -> None:
    for name, family in FAMILIES.items():
        figures[name] = tuned_and_served(family, tmp_path / name)


def tuned_and_served(family: Family, folder: Path) -> str:
    base = save(family, folder / "tiny", HEAD)
    with serve(base, folder / "data", "--max-loras", "2", dtype="float32") as server:
        server.wait("/ready")
        client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0, timeout=120)
        job = run(client, ROWS, METHOD)
        served_as_trained(client, server, base, job)
        question: Any = [{"role": "user", "content": f"Is {CITIES[0]} far?"}]
        asked: Any = {"model": str(job.fine_tuned_model), "messages": question, "temperature": 0, "max_tokens": 40}
        answer = client.chat.completions.create(**asked).choices[0]
    assert (answer.message.content, answer.finish_reason) == (ANSWER, "stop")
    return "the trainer's probabilities, and an answer that ends"
