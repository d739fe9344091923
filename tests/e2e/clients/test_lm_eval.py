"""lm-evaluation-harness against our endpoint, as docs/fine-tuning.md says: log-likelihoods. Chats: tests/proofs."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from demo import base
from tests import processes
from tests.conftest import ROOT
from tests.e2e.conftest import BF16_NATS, Running

LIMIT_SECONDS = 150


def lm_eval(running: Running, kind: str, path: str, task: str, output: Path, *flags: str) -> tuple[Any, list[Any]]:
    """The task's results, and its samples."""
    arguments = f"model={base.NAME},base_url={running.server.base_url}/{path},num_concurrent=8"
    if kind == "local-completions":
        arguments += f",tokenizer={ROOT / 'var/models' / base.NAME}"
    command = [sys.executable, "-m", "lm_eval", "--model", kind, "--model_args", arguments, "--tasks", task, *flags]
    command += ["--include_path", "demo/lm_eval", "--output_path", str(output), "--log_samples"]
    environment = {"OPENAI_API_KEY": running.server.api_key, "HF_HUB_OFFLINE": "1"}
    done = processes.run(command, cwd=ROOT, environment=environment, limit_seconds=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = output.rglob("results_*.json")
    (samples,) = output.rglob("samples_*.jsonl")
    return json.loads(results.read_text())["results"][task], [json.loads(line) for line in samples.open()]


def test_log_likelihoods_are_transformers_own(running: Running, smollm2: Path, tokenizer: Any, tmp_path: Path) -> None:
    results, samples = lm_eval(running, "local-completions", "completions", "capitals", tmp_path)
    assert results["acc,none"] >= 0.9
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    for sample in samples[:4]:
        for argument, answer in zip(sample["arguments"].values(), sample["resps"], strict=True):
            context, ending = argument["arg_0"], argument["arg_1"]
            ids = torch.tensor([tokenizer(context + ending, add_special_tokens=False).input_ids])
            asked = len(tokenizer(context, add_special_tokens=False).input_ids)
            with torch.inference_mode():
                scores = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
            expected = scores.gather(1, ids[0, 1:, None])[asked - 1 :].sum().item()
            assert float(answer[0][0]) == pytest.approx(expected, abs=BF16_NATS * (ids.shape[1] - asked))
