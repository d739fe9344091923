"""Makes a killed and resumed run end with the same weights as an uninterrupted one, for every method's trainer.

A checkpoint is written elsewhere and renamed into place, so it is never half written. The order of an epoch's rows only
depends on seed and epoch: transformers draws it from generators that no checkpoint holds, so a run resumed within an
epoch trained 7 of 40 rows twice and 7 never. transformers saves the states of Python's, numpy's and torch's generators.
tests/training/methods/loop/test_resume.py kills each method's trainer and compares weights bit by bit.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import EarlyStoppingCallback, Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from adapters.store import sync

_BESIDE = "saving"


def newest(checkpoints: Path) -> str | None:
    """The newest checkpoint, for `Trainer.train`; folders that a kill left half written or half deleted are removed."""
    checkpoints.mkdir(exist_ok=True)
    whole: dict[int, Path] = {}
    for folder in checkpoints.iterdir():
        if folder.name.startswith("checkpoint-") and (folder / TRAINER_STATE_NAME).is_file():
            whole[int(folder.name.rpartition("-")[2])] = folder
        elif folder.is_dir():
            shutil.rmtree(folder)
    return str(whole[max(whole)]) if whole else None


def delete(checkpoint: Path) -> None:
    """Delete a checkpoint; it is renamed first, so that a kill never leaves half of one."""
    gone = checkpoint.with_name(f"deleted-{checkpoint.name}")
    checkpoint.rename(gone)
    shutil.rmtree(gone)


class EarlyStopping(EarlyStoppingCallback):
    """transformers' early stopping, which also holds after a kill and a resume."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop at once if the training had been stopped early before the kill."""
        super().on_train_begin(args, state, control)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class ByEpoch(Sampler[int]):
    """Another sampler's rows, in an order that depends on the job's seed and the epoch only."""

    def __init__(self, sampler: Any, trainer: Trainer) -> None:
        self._sampler = sampler
        self._trainer = trainer

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[int]:
        epoch = int(self._trainer.state.epoch or 0)
        self._sampler.generator = torch.Generator().manual_seed(self._trainer.args.seed + epoch)
        return iter(self._sampler)


class ResumableTrainer(Trainer):
    """The base of every method's trainer."""

    _saving = False

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> ByEpoch:
        return ByEpoch(super()._get_train_sampler(*args, **kwargs), self)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if not self.control.should_training_stop:  # True if it was stopped early before the kill
            super()._run_epoch(*args, **kwargs)

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, _BESIDE) if self._saving else folder

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        checkpoints = Path(self._get_output_dir(trial))
        self._saving = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saving = False
        folder = checkpoints / _BESIDE / f"checkpoint-{self.state.global_step}"
        self._find_best()
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        for path in (*folder.rglob("*"), folder):
            sync(path)
        folder.rename(checkpoints / folder.name)
        sync(checkpoints)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        begun = super()._init_training_state(*args, **kwargs)
        self._find_best()
        return begun

    def _find_best(self) -> None:
        """Set the path of the best checkpoint, since the job's directory may have been moved."""
        if self.state.best_global_step:
            best = f"checkpoint-{self.state.best_global_step}"
            self.state.best_model_checkpoint = os.path.join(self._get_output_dir(None), best)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load all adapters: of several, transformers only loads those in subfolders, but PEFT saves `default` above.

        In DPO and GRPO the policy is `default`, and the reference `ref`.
        """
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        trained: Any = self.model
        if len(getattr(trained, "peft_config", ())) > 1:
            trained.load_adapter(resume_from_checkpoint, trained.active_adapter, is_trainable=True)
