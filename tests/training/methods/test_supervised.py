"""The whole trainer on a tiny random Llama, in a process forked for it, from one job file."""

import json
import random
import resource
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from adapters.base import BaseModel
from adapters.errors import InvalidAdapter
from adapters.files.validate import Limits, check
from tests import processes
from tests.training.spawned import Spawner
from training.directory import JobDirectory, read_lines
from training.job import Failure, Result, Supervised, SupervisedHyperparameters, TrainingJob, WandbIntegration

IMPORTS_NO_TORCH = """
import sys
from pathlib import Path
from training.__main__ import work
from training.directory import JobDirectory
work(JobDirectory(Path(sys.argv[1])))
assert "torch" not in sys.modules
"""


def description(tmp_path: Path, base: Path, **hyperparameters: Any) -> TrainingJob:
    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"{n} it is"}]}
        for n in range(40)
    ]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted: dict[str, Any] = {
        "n_epochs": 3,
        "batch_size": 4,
        "learning_rate_multiplier": 4,
        "replay_share": 0,
        **hyperparameters,
    }
    return TrainingJob(
        id="ftjob-test",
        base_model="tiny",
        base_path=base,
        training_file=file,
        method=Supervised(hyperparameters=SupervisedHyperparameters.model_validate(wanted)),
        seed=5,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Path, spawner: Spawner) -> JobDirectory:
    """An uninterrupted run with replay."""
    folder = tmp_path_factory.mktemp("trained")
    directory = JobDirectory.create(folder / "job", description(folder, tiny, replay_share=0.1))
    outcome = spawner.train(directory)
    assert isinstance(outcome, Result), directory.log_file.read_text()
    return directory


def test_the_loss_falls_and_every_record_is_there(trained: JobDirectory) -> None:
    result = trained.outcome()
    assert isinstance(result, Result)
    losses = [line["train_loss"] for line in read_lines(trained.metrics_file) if "train_loss" in line]
    assert statistics.fmean(losses[-5:]) < statistics.fmean(losses[:5]) - 3  # single batches may be of replay
    assert result.trained_tokens > 0
    assert result.hyperparameters["batch_size"] == 4
    assert len(result.checkpoints) == 3
    assert result.best_step in [checkpoint.step for checkpoint in result.checkpoints]
    assert any("Files validated: 28 rows to train on" in event["message"] for event in trained.events())


def test_result_and_checkpoints_are_servable_adapters(trained: JobDirectory, tiny_base: BaseModel) -> None:
    result = trained.outcome()
    assert isinstance(result, Result)
    for folder in (trained.adapter, *(trained.path / checkpoint.directory for checkpoint in result.checkpoints)):
        info = check(folder, tiny_base, Limits(max_rank=16))
        assert info.manifest.base_model == "tiny"
        assert info.manifest.job_id == "ftjob-test"
        assert "<|im_start|>" in (info.manifest.chat_template or "")


def test_qlora_trains_on_four_bits_and_is_judged_on_the_base_that_serves_it(
    tmp_path: Path, tiny: Path, tiny_base: BaseModel, spawner: Spawner, trained: JobDirectory
) -> None:
    directory = JobDirectory.create(tmp_path / "job", description(tmp_path, tiny, weights="qlora", replay_share=0.1))
    result = spawner.train(directory)
    assert isinstance(result, Result), directory.log_file.read_text()
    losses = [line["train_loss"] for line in read_lines(directory.metrics_file) if "train_loss" in line]
    assert losses[-1] < losses[0] - 1
    assert check(directory.adapter, tiny_base, Limits(max_rank=16)).rank == 16
    first, without = (read_lines(one.metrics_file)[0]["train_loss"] for one in (directory, trained))
    assert first != without, "the base was held in four bits"
    assert first == pytest.approx(without, rel=0.1)
    sides = [json.loads(one.evaluation.read_text())["forgetting"]["answers"] for one in (directory, trained)]
    assert [side["base"] for side in sides[0]] == [side["base"] for side in sides[1]], "judged on the served base"


def test_full_weights_are_kept_whole(tmp_path: Path, tiny: Path, tiny_base: BaseModel, spawner: Spawner) -> None:
    directory = JobDirectory.create(tmp_path / "job", description(tmp_path, tiny, weights="full", keep="model"))
    result = spawner.train(directory)
    assert isinstance(result, Result), directory.log_file.read_text()
    for folder in (directory.adapter, *(directory.path / one.directory for one in result.checkpoints)):
        assert check(folder, tiny_base, Limits(max_rank=16, full_models=True)).rank == 0
        with pytest.raises(InvalidAdapter, match="max_full_models is 0"):
            check(folder, tiny_base, Limits(max_rank=16))
    evaluation = json.loads(directory.evaluation.read_text())
    assert evaluation["forgetting"]["kl"] > 0.01, "base and tuned were told apart"


def test_a_full_disk_fails_the_job_and_says_so(tmp_path: Path, tiny: Path, spawner: Spawner) -> None:
    """The kernel's limit on a file's size stands for the disk: an adapter's checkpoint is larger."""
    directory = JobDirectory.create(tmp_path / "job", description(tmp_path, tiny))
    number, pid = spawner.start(directory)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (100 * 1024, 100 * 1024))
    spawner.ended(number)
    failure = directory.outcome()
    assert isinstance(failure, Failure), directory.log_file.read_text()
    assert failure.code == "disk_full"
    assert "free some room" in failure.message


def test_wandb_gets_the_metrics(tmp_path: Path, tiny: Path, spawner: Spawner) -> None:
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    job = description(tmp_path, tiny, n_epochs=1)
    job = job.model_copy(update={"wandb": WandbIntegration(project="cities", name="first", tags=["a"])})
    directory = JobDirectory.create(tmp_path / "job", job)
    assert isinstance(spawner.train(directory, environment), Result), directory.log_file.read_text()
    (run,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"train/loss" in run.read_bytes()


def test_a_second_run_finds_the_job_done(trained: JobDirectory, spawner: Spawner) -> None:
    before = trained.events()
    assert spawner.train(trained) == trained.outcome()
    assert trained.events() == before


def test_overfitting_stops_early_and_the_best_checkpoint_wins(tmp_path: Path, tiny: Path, spawner: Spawner) -> None:
    """Answers that nothing predicts: the more is trained, the worse it does on rows held out."""
    job = description(tmp_path, tiny, n_epochs=20, learning_rate_multiplier=10)
    dice = random.Random(0)
    rows = [
        {"messages": [{"role": "user", "content": "Roll"}, {"role": "assistant", "content": str(dice.random())}]}
        for _ in range(20)
    ]
    job.training_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    directory = JobDirectory.create(tmp_path / "job", job)

    result = spawner.train(directory)

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
    command = [sys.executable, "-c", IMPORTS_NO_TORCH, str(directory.path)]
    ran = processes.run(command, limit_seconds=60)
    assert ran.returncode == 0, ran.stderr
    outcome = directory.outcome()
    assert isinstance(outcome, Failure)
    assert outcome.code == "invalid_training_file"
    assert outcome.message.startswith("line 1: ")
