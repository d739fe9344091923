"""Writes a job's metrics, events and checkpoints from the trainer's callbacks, and stops the training if asked to.

Each epoch has a checkpoint, as at OpenAI. In between, one is saved every `SAVE_SECONDS`, only for a resume after a
crash. Kept are the best one, those of the last `KEPT_CHECKPOINTS` epochs, and the newest; the others are deleted.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.directory import JobDirectory, append_line, read_lines
from training.errors import Interrupted
from training.job import KEPT_CHECKPOINTS, Checkpoint
from training.methods.loop.guards import Guards
from training.methods.loop.resume import delete

SAVE_SECONDS = 60.0

# Trainer's log keys -> OpenAI's names of metrics, and ours for other methods
_NAMES = {
    "loss": "train_loss",
    "mean_token_accuracy": "train_mean_token_accuracy",
    "eval_loss": "full_valid_loss",
    "eval_mean_token_accuracy": "full_valid_mean_token_accuracy",
    "grad_norm": "grad_norm",
    "rewards/accuracies": "train_preference_accuracy",
    "rewards/margins": "train_reward_margin",
    "eval_rewards/accuracies": "full_valid_preference_accuracy",
    "reward": "train_mean_reward",
    "reward_std": "train_reward_std",
    "eval_reward": "full_valid_mean_reward",
    "kl": "kl",
    "completions/mean_length": "mean_answer_tokens",
}


class Progress(TrainerCallback):
    """Writes the records that OpenAI's API shows of a running job."""

    def __init__(self, directory: JobDirectory) -> None:
        self._directory = directory
        self._latest: dict[str, float] = {}
        self._guards = Guards()
        self._saved_at = time.monotonic()
        self._stopping = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within the block, SIGTERM saves a checkpoint after the running step, and ends the training.

        Raises:
            Interrupted: at the end of the block, if that happened.
        """

        def stop(_signal: int, _frame: object) -> None:
            if self._directory.outcome() is not None:  # cancelled: there is nothing to save
                os._exit(1)
            self._stopping = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
        if self._stopping:
            raise Interrupted

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write an event with the number of steps and, after a resume, restore the guards' state."""
        if state.global_step:
            self._recall(state)
        resumed = f"; resumed after step {state.global_step}" if state.global_step else ""
        self._directory.event(f"Training started: {state.max_steps} steps{resumed}")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save at an epoch's end, after SAVE_SECONDS, or if the job was asked to stop."""
        if self._stopping:
            control.should_save = control.should_training_stop = True
        elif _ends_epoch(state) or time.monotonic() - self._saved_at > SAVE_SECONDS:
            control.should_save = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Record the metrics of a step or an evaluation.

        Raises:
            TrainingDiverged: see `Guards`.
        """
        # TRL gives None as the reward of a step if the grader failed on all of its answers.
        given = {name: value for name, value in (logs or {}).items() if value is not None}  # pyright: ignore[reportUnnecessaryComparison]
        metrics = {ours: float(given[theirs]) for theirs, ours in _NAMES.items() if theirs in given}
        if not metrics:
            return
        for warning in self._see(state.global_step, metrics):
            self._directory.event(warning, level="warn")
        data = {"step": state.global_step, "total_steps": state.max_steps, **metrics}
        append_line(self._directory.metrics_file, {"time": time.time(), **data})
        shown = next(
            (name for name in ("train_loss", "full_valid_loss", "full_valid_mean_reward") if name in metrics), None
        )
        if shown is not None:
            words = {"train_loss": "training loss", "full_valid_loss": "validation loss"}.get(
                shown, "validation reward"
            )
            message = f"Step {state.global_step}/{state.max_steps}: {words}={metrics[shown]:.4f}"
            self._directory.event(message, type="metrics", data=data)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Record a checkpoint at an epoch's end, and delete those that are no longer needed."""
        self._saved_at = time.monotonic()
        if self._stopping:  # asked to stop during the evaluation or the save
            control.should_training_stop = True
        if _ends_epoch(state):
            self._record(state.global_step)
        kept = {checkpoint.step for checkpoint in self.checkpoints()[-KEPT_CHECKPOINTS:]}
        kept |= {state.global_step, state.best_global_step or state.global_step}
        for folder in self._directory.checkpoints.glob("checkpoint-*"):
            if int(folder.name.rpartition("-")[2]) not in kept:
                delete(folder)

    def checkpoints(self) -> list[Checkpoint]:
        """The epochs' checkpoints that still have files, by step."""
        records = read_lines(self._directory.path / "checkpoints.jsonl")
        found = {record["step"]: Checkpoint.model_validate(record) for record in records}
        return [found[step] for step in sorted(found) if (self._directory.path / found[step].directory).is_dir()]

    def _record(self, step: int) -> None:
        checkpoint = Checkpoint(
            step=step,
            directory=f"checkpoints/checkpoint-{step}",
            metrics={"step": step, **self._latest},
            created_at=int(time.time()),
        )
        append_line(self._directory.path / "checkpoints.jsonl", checkpoint.model_dump())
        self._directory.event(f"Checkpoint saved at step {step}")

    def _recall(self, state: TrainerState) -> None:
        """Give the guards the earlier metrics, and record a checkpoint that was saved but not yet recorded."""
        seen: dict[tuple[int, bool], dict[str, float]] = {}
        for line in read_lines(self._directory.metrics_file):
            metrics = {name: value for name, value in line.items() if name in _NAMES.values()}
            seen[line["step"], "train_loss" not in metrics] = metrics  # if trained twice, the last counts
        for step, evaluation in sorted(seen):
            if step <= state.global_step:
                self._see(step, seen[step, evaluation])
        if _ends_epoch(state) and state.global_step not in [checkpoint.step for checkpoint in self.checkpoints()]:
            self._record(state.global_step)

    def _see(self, step: int, metrics: dict[str, float]) -> list[str]:
        warnings = self._guards.see(step, metrics)
        self._latest.update({name: value for name, value in metrics.items() if name != "grad_norm"})  # of one step
        return warnings


def _ends_epoch(state: TrainerState) -> bool:
    return abs((state.epoch or 0) - round(state.epoch or 0)) < 1e-6
