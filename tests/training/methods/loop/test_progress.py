"""From the trainer's callbacks to the job's records, without a trainer."""

import signal
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from training.directory import JobDirectory, read_lines
from training.errors import Interrupted, TrainingDiverged
from training.job import KEPT_CHECKPOINTS
from training.methods.loop.progress import Progress

STEPS_AN_EPOCH = 10
ARGUMENTS: Any = None  # which no callback of ours reads


@pytest.fixture
def directory(tmp_path: Path) -> JobDirectory:
    (tmp_path / "checkpoints").mkdir()
    return JobDirectory(tmp_path)


def state(step: int, best: int | None = None) -> TrainerState:
    return TrainerState(global_step=step, max_steps=100, epoch=step / STEPS_AN_EPOCH, best_global_step=best)


def save(progress: Progress, directory: JobDirectory, step: int, best: int | None = None) -> None:
    (directory.checkpoints / f"checkpoint-{step}").mkdir()
    progress.on_save(ARGUMENTS, state(step, best), TrainerControl())


def test_a_step_is_a_metric_and_an_event(directory: JobDirectory) -> None:
    Progress(directory).on_log(ARGUMENTS, state(3), TrainerControl(), {"loss": 1.5, "learning_rate": 0.1})
    (line,) = read_lines(directory.metrics_file)
    assert (line["step"], line["total_steps"], line["train_loss"]) == (3, 100, 1.5)
    assert "learning_rate" not in line
    (event,) = directory.events()
    assert event["message"] == "Step 3/100: training loss=1.5000"
    assert event["type"] == "metrics"


def test_a_loss_that_is_no_number_ends_the_training(directory: JobDirectory) -> None:
    with pytest.raises(TrainingDiverged):
        Progress(directory).on_log(ARGUMENTS, state(3), TrainerControl(), {"loss": float("nan")})


def test_kept_are_the_best_the_last_of_epochs_and_the_newest(directory: JobDirectory) -> None:
    progress = Progress(directory)
    epochs = [STEPS_AN_EPOCH * number for number in range(1, KEPT_CHECKPOINTS + 3)]
    for step in (*epochs, epochs[-1] + 5):  # the last one is saved between epochs
        save(progress, directory, step, best=epochs[0])
    there = {int(folder.name.rpartition("-")[2]) for folder in directory.checkpoints.iterdir()}
    assert there == {epochs[0], *epochs[-KEPT_CHECKPOINTS:], epochs[-1] + 5}
    assert [one.step for one in progress.checkpoints()] == [epochs[0], *epochs[-KEPT_CHECKPOINTS:]]


def test_a_checkpoint_has_the_latest_figures_but_for_one_steps_own(directory: JobDirectory) -> None:
    progress = Progress(directory)
    progress.on_log(ARGUMENTS, state(9), TrainerControl(), {"loss": 2.0, "grad_norm": 3.0})
    progress.on_log(ARGUMENTS, state(10), TrainerControl(), {"eval_loss": 1.0})
    save(progress, directory, 10)
    assert progress.checkpoints()[0].metrics == {"step": 10, "train_loss": 2.0, "full_valid_loss": 1.0}


def test_sigterm_saves_after_the_step_and_ends(directory: JobDirectory) -> None:
    progress, control = Progress(directory), TrainerControl()
    before = signal.getsignal(signal.SIGTERM)

    def interrupted() -> None:
        with progress.interruptible():
            signal.raise_signal(signal.SIGTERM)
            progress.on_step_end(ARGUMENTS, state(3), control)

    with pytest.raises(Interrupted):
        interrupted()
    assert (control.should_save, control.should_training_stop) == (True, True)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_kill_between_a_checkpoint_and_its_record_costs_no_record(directory: JobDirectory) -> None:
    (directory.checkpoints / "checkpoint-10").mkdir()
    progress = Progress(directory)
    progress.on_train_begin(ARGUMENTS, state(10), TrainerControl())
    assert [one.step for one in progress.checkpoints()] == [10]
    assert directory.events()[-1]["message"] == "Training started: 100 steps; resumed after step 10"
