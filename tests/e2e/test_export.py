"""A fine-tuned model leaves the server: merged, and it says what the adapter said; wrongly asked, and it says why.

As ONNX it runs in the JVM: test_java.py. SmolLM2 whole, merged, served, and in the JVM: tests/proofs.
"""

import sys
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from adapters.base import BaseModel
from demo.server import Server
from server.cli import app
from tests import processes
from tests.conftest import MakeAdapter
from tests.e2e.test_alive import upload

NAME = "ft:tiny:test:export:1"


def test_a_wrong_export_says_what_to_do(mistreated: Server, tiny: Path, tmp_path: Path) -> None:
    data = ("--data-dir", str(mistreated.log.parent))
    for model, flags, message in (
        ("ft:none", ("--base", str(tiny)), "ft:none"),
        ("ft:none", ("--base", str(tiny), "--format", "gguf"), "expected one of merged, onnx"),
        ("ft:none", (), "--base"),
    ):
        refused = CliRunner().invoke(app, ["export", model, str(tmp_path / "out"), *data, *flags])
        assert refused.exit_code == 1
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
    assert "exists already" in CliRunner().invoke(app, ["export", "ft:none", str(tmp_path), *data]).stderr
    assert not (tmp_path / "out").exists()


def test_the_merged_model_has_the_adapters_probabilities(
    mistreated: Server, tiny: Path, tiny_base: BaseModel, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    upload(mistreated, NAME, make_adapter(tiny_base, seed=50, scale=0.2)).raise_for_status()
    command = [sys.executable, "-m", "server.cli", "export", NAME, str(tmp_path / "merged"), "--base", str(tiny)]
    done = processes.run([*command, "--data-dir", str(mistreated.log.parent)], limit_seconds=100)
    assert done.returncode == 0, done.stderr
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base: Any = AutoModelForCausalLM.from_pretrained(tiny)
    ids = list(range(300, 340))
    following = torch.tensor(ids[1:])[:, None]
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([ids])).logits[0, :-1] for model in (merged, base)]
    scores, plain = (one.log_softmax(-1).gather(1, following) for one in logits)
    client = openai.OpenAI(base_url=mistreated.base_url, api_key=mistreated.api_key)
    answer = client.completions.create(model=NAME, prompt=ids, echo=True, logprobs=1, max_tokens=1, temperature=0)
    assert answer.choices[0].logprobs
    served = (answer.choices[0].logprobs.token_logprobs or [])[1 : len(ids)]
    assert scores[:, 0].tolist() == pytest.approx(served, abs=0.01)
    assert plain[:, 0].tolist() != pytest.approx(served, abs=0.5)
    client.models.delete(NAME)
