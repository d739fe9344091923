"""Where a base is loaded, and which bases can be trained: those whose tokenizer has no padding too."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

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


def test_a_base_without_a_pad_token_is_trained(small: Path, tmp_path: Path, spawner: Spawner) -> None:
    base = Path(shutil.copytree(small, tmp_path / "base"))
    config = json.loads((base / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "." * (n + 1)}]}
        for n in range(12)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    directory = JobDirectory.create(tmp_path / "job", job(base, tmp_path, accept_findings=True))
    outcome = spawner.train(directory, Death(prove=True).environment())
    assert isinstance(outcome, Result), outcome
