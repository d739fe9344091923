"""From the trainer's callbacks to the job's records: metrics.jsonl, events, and the loss that is no number."""

import math
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.errors import TrainingDiverged
from training.job import Checkpoint, JobDirectory, append_line, read_lines

# Trainer's log keys -> the names of OpenAI's metrics
_NAMES = {
    "loss": "train_loss",
    "mean_token_accuracy": "train_mean_token_accuracy",
    "eval_loss": "full_valid_loss",
    "eval_mean_token_accuracy": "full_valid_mean_token_accuracy",
}


class Progress(TrainerCallback):
    """Writes what OpenAI's API shows of a running job."""

    def __init__(self, directory: JobDirectory) -> None:
        self._directory = directory
        self._latest: dict[str, float] = {}
        self.trained_tokens = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Say how many steps there will be, or from which one the job goes on."""
        resumed = f"; resumed after step {state.global_step}" if state.global_step else ""
        self._directory.event(f"Training started: {state.max_steps} steps{resumed}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Record a step's or an evaluation's figures.

        Raises:
            TrainingDiverged: the loss is no finite number.
        """
        logs = logs or {}
        self.trained_tokens = int(logs.get("num_tokens", self.trained_tokens))
        metrics = {ours: float(logs[theirs]) for theirs, ours in _NAMES.items() if theirs in logs}
        loss = metrics.get("train_loss")
        if not metrics:
            return
        if not all(math.isfinite(value) for value in metrics.values()):
            raise TrainingDiverged(
                f"the loss is {loss} at step {state.global_step}: training diverged. "
                "Lower learning_rate_multiplier, or look for damaged rows in the data"
            )
        self._latest.update(metrics)
        data = {"step": state.global_step, "total_steps": state.max_steps, **metrics}
        append_line(self._directory.metrics_file, {"time": time.time(), **data})
        figures = (
            f"training loss={loss:.4f}" if loss is not None else f"validation loss={metrics['full_valid_loss']:.4f}"
        )
        self._directory.event(f"Step {state.global_step}/{state.max_steps}: {figures}", type="metrics", data=data)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Record a checkpoint."""
        checkpoint = Checkpoint(
            step=state.global_step,
            directory=f"checkpoints/checkpoint-{state.global_step}",
            metrics={"step": state.global_step, **self._latest},
            created_at=int(time.time()),
        )
        append_line(self._directory.path / "checkpoints.jsonl", checkpoint.model_dump())
        self._directory.event(f"Checkpoint saved at step {state.global_step}")

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints whose files are still there, by step."""
        records = read_lines(self._directory.path / "checkpoints.jsonl")
        found = {record["step"]: Checkpoint.model_validate(record) for record in records}
        return [found[step] for step in sorted(found) if (self._directory.path / found[step].directory).is_dir()]
