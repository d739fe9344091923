"""The whole trainer on a tiny random Llama, as its own process, from one job file."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from adapters.base import BaseModel
from adapters.validate import Limits, check
from training.directory import JobDirectory, read_lines
from training.job import Failure, Result, Supervised, SupervisedHyperparameters, TrainingJob

TRAINER = (sys.executable, "-P", "-m", "training")


def description(tmp_path: Path, base: Path, **hyperparameters: Any) -> TrainingJob:
    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"{n} it is"}]}
        for n in range(40)
    ]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 4, "replay_share": 0, **hyperparameters}
    return TrainingJob(
        id="ftjob-test",
        base_model="tiny",
        base_path=base,
        training_file=file,
        method=Supervised(hyperparameters=SupervisedHyperparameters(**wanted)),
        seed=5,
    )


def train(directory: JobDirectory) -> Result | Failure | None:
    with directory.log_file.open("ab") as log:
        subprocess.run([*TRAINER, str(directory.description)], stdout=log, stderr=log, check=False)
    return directory.outcome()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> JobDirectory:
    """An uninterrupted run with replay."""
    folder = tmp_path_factory.mktemp("trained")
    directory = JobDirectory.create(folder / "job", description(folder, tiny, replay_share=0.1))
    outcome = train(directory)
    assert isinstance(outcome, Result), directory.log_file.read_text()
    return directory


def test_the_loss_falls_and_every_record_is_there(trained: JobDirectory) -> None:
    result = trained.outcome()
    assert isinstance(result, Result)
    losses = [line["train_loss"] for line in read_lines(trained.metrics_file) if "train_loss" in line]
    assert losses[-1] < losses[0] - 1
    assert result.trained_tokens > 0
    assert result.hyperparameters["batch_size"] == 4
    assert len(result.checkpoints) == 3
    assert result.best_step in [checkpoint.step for checkpoint in result.checkpoints]
    assert any("Files validated: 36 rows" in event["message"] for event in trained.events())


def test_result_and_checkpoints_are_servable_adapters(trained: JobDirectory, tiny_base: BaseModel) -> None:
    result = trained.outcome()
    assert isinstance(result, Result)
    for folder in (trained.adapter, *(trained.path / checkpoint.directory for checkpoint in result.checkpoints)):
        info = check(folder, tiny_base, Limits(max_rank=16))
        assert info.manifest.base_model == "tiny"
        assert info.manifest.job_id == "ftjob-test"
        assert "<|im_start|>" in (info.manifest.chat_template or "")


def test_a_second_run_finds_the_job_done(trained: JobDirectory) -> None:
    before = trained.events()
    assert train(trained) == trained.outcome()
    assert trained.events() == before


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path, tiny: Path) -> None:
    uninterrupted = JobDirectory.create(tmp_path / "a", description(tmp_path, tiny))
    killed = JobDirectory.create(tmp_path / "b", description(tmp_path, tiny))
    train(uninterrupted)
    with killed.log_file.open("ab") as log:
        process = subprocess.Popen([*TRAINER, str(killed.description)], stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while not any("Checkpoint saved" in event["message"] for event in killed.events()):
        assert time.monotonic() < deadline, killed.log_file.read_text()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert killed.outcome() is None

    assert isinstance(train(killed), Result), killed.log_file.read_text()

    assert any("resumed after step" in event["message"] for event in killed.events())
    last = [[line for line in read_lines(d.metrics_file) if "train_loss" in line][-1] for d in (uninterrupted, killed)]
    assert last[0]["step"] == last[1]["step"]
    assert last[0]["train_loss"] == pytest.approx(last[1]["train_loss"], rel=0.02)


def test_overfitting_stops_early_and_the_best_checkpoint_wins(tmp_path: Path, tiny: Path) -> None:
    """Answers that nothing predicts: the more is trained, the worse it does on rows held out."""
    job = description(tmp_path, tiny, n_epochs=20, learning_rate_multiplier=10)
    dice = random.Random(0)
    rows = [
        {"messages": [{"role": "user", "content": "Roll"}, {"role": "assistant", "content": str(dice.random())}]}
        for _ in range(20)
    ]
    job.training_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    directory = JobDirectory.create(tmp_path / "job", job)

    result = train(directory)

    assert isinstance(result, Result), directory.log_file.read_text()
    assert any("Stopped early" in event["message"] for event in directory.events())
    losses = {
        line["step"]: line["full_valid_loss"]
        for line in read_lines(directory.metrics_file)
        if "full_valid_loss" in line
    }
    assert result.best_step == min(losses, key=lambda step: losses[step])
    assert result.best_step < max(losses)


def test_a_bad_file_fails_before_torch_is_imported(tmp_path: Path, tiny: Path) -> None:
    job = description(tmp_path, tiny)
    job.training_file.write_text('{"messages": []}\n' * 12)
    directory = JobDirectory.create(tmp_path / "job", job)
    started = time.monotonic()
    outcome = train(directory)
    assert isinstance(outcome, Failure)
    assert outcome.code == "invalid_training_file"
    assert outcome.message.startswith("line 1: ")
    assert time.monotonic() - started < 8
