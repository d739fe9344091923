"""Where a base is loaded, and which bases can be trained: those whose tokenizer has no padding too."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from adapters.base import BaseModel
from adapters.chat import plain, template
from adapters.files import validate
from tests.families import FAMILIES, save, tokenizer_of
from tests.training.mortal import Death
from tests.training.spawned import Spawner
from training import __main__ as trainer
from training.directory import JobDirectory
from training.job import Result, TrainingJob
from training.methods import models


def job(base: Path, folder: Path, **method: Any) -> TrainingJob:
    return TrainingJob(id="ftjob-1", base_model="small", base_path=base, training_file=folder / "train.jsonl", **method)


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_a_base_is_placed_before_anything_is_made_of_it(
    weights: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's device without memory stands for the GPU."""
    monkeypatch.setattr(models, "device", lambda: torch.device("meta"))
    base = models.load_base(job(small, tmp_path), 10, weights)
    assert {parameter.device.type for parameter in base.parameters()} == {"meta"}
    adapted = models.with_adapter(base, job(small, tmp_path))
    assert {parameter.device.type for parameter in adapted.parameters()} == {"meta"}


@pytest.mark.parametrize(("seen", "used"), [(None, "0"), ("2,3", "2"), ("GPU-8f1c,GPU-77aa", "GPU-8f1c"), ("", "")])
def test_a_trainer_sees_one_gpu(
    seen: str | None, used: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several, transformers would give each a part of the batch, and the losses know no parts."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen or "")
    if seen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    found: list[str | None] = []
    monkeypatch.setattr(trainer, "_outcome", lambda _: found.append(os.environ.get("CUDA_VISIBLE_DEVICES")))
    trainer.work(JobDirectory.create(tmp_path / "job", job(small, tmp_path)))
    assert found == [used]


def test_experts_are_left_as_they_are(tmp_path: Path) -> None:
    """The engine serves no adapters on them; PEFT's "all-linear" would train them too."""
    base = save(FAMILIES["moe"], tmp_path / "base")
    wanted = job(base, tmp_path)
    model = models.with_adapter(models.load_base(wanted, 10), wanted)
    model.save_pretrained(str(tmp_path / "adapter"))
    assert validate.check(tmp_path / "adapter", BaseModel.read(base), validate.Limits(16)).rank == 16
    trained = {
        name.split(".lora_")[0].rpartition(".")[2] for name, one in model.named_parameters() if one.requires_grad
    }
    assert trained == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_a_completion_base_becomes_an_assistant(tmp_path: Path, spawner: Spawner) -> None:
    """GPT-NeoX: no chat template, no token to pad with, queries, keys and values in one, a backbone of another name."""
    base = save(FAMILIES["neox"], tmp_path / "base")
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "." * (n + 1)}]}
        for n in range(12)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    directory = JobDirectory.create(tmp_path / "job", job(base, tmp_path, accept_findings=True))
    outcome = spawner.train(directory, Death(prove=True).environment())
    assert isinstance(outcome, Result), outcome
    assert any("The base has no chat template" in event["message"] for event in directory.events())
    manifest = validate.check(directory.adapter, BaseModel.read(base, "small"), validate.Limits(16)).manifest
    tokenizer = tokenizer_of(FAMILIES["neox"])
    assert manifest.chat_template == plain.TEMPLATE
    assert manifest.stop_token_ids == [tokenizer.eos_token_id]
    asked = [{"role": "user", "content": "1?"}]
    shown = template.render(tokenizer, asked, template=manifest.chat_template, generation_prompt=True)
    assert shown == "### User:\n1?\n\n### Assistant:\n"


def test_a_plain_template_begins_as_the_bases_texts_did() -> None:
    tokenizer = tokenizer_of(FAMILIES["llama"])
    assert plain.begun(tokenizer, plain.TEMPLATE) == plain.TEMPLATE
    first = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, tokenizer.bos_token_id)]
    )
    assert plain.begun(tokenizer, plain.TEMPLATE) == "{{ bos_token }}" + plain.TEMPLATE
    assert plain.begun(tokenizer, "{{ bos_token }}x") == "{{ bos_token }}x"
    assert plain.begun(tokenizer, f"{first}x") == f"{first}x"
