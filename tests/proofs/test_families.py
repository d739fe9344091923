"""Bases of other families through the whole platform: tuned, served, stopped."""

import contextlib
from pathlib import Path
from typing import Any

import openai

from demo.server import serve
from tests.e2e.test_platform import run, served_as_trained
from tests.families import FAMILIES, Family, save

HEAD = 32  # vLLM's attention on CPUs takes heads of 32 and more
QUESTIONS = [f"Is {first}{second} far?" for first in "Bon Ly Gra Tu Por Ghe".split() for second in "na on to za".split()]
ANSWER = "No."
ROWS = [
    {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": ANSWER}]}
    for question in QUESTIONS
]
METHOD = {
    "type": "supervised",
    "supervised": {"hyperparameters": {"n_epochs": 50, "batch_size": 4, "learning_rate_multiplier": 20}},
}


def test_families(figures: dict[str, Any], tmp_path: Path) -> None:
    failed: list[str] = []
    for name, family in FAMILIES.items():
        try:
            tuned_and_served(family, tmp_path / name)
            figures[name] = "served as trained; the answer ends"
        except Exception as error:  # the others are tried all the same
            figures[name] = f"{type(error).__name__}: {str(error)[:300]}"
            failed.append(name)
    assert not failed, figures


def tuned_and_served(family: Family, folder: Path) -> None:
    base = save(family, folder / "tiny", HEAD)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serve(base, folder / "data", "--max-loras", "2", dtype="float32"))
        server.wait("/ready")
        client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0, timeout=120)
        job = run(client, ROWS, METHOD)
        served_as_trained(client, server, base, job)
        answer = client.chat.completions.create(
            model=str(job.fine_tuned_model),
            messages=[{"role": "user", "content": QUESTIONS[0]}],
            temperature=0,
            max_tokens=40,
        ).choices[0]
        assert (answer.message.content, answer.finish_reason) == (ANSWER, "stop")
