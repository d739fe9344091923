"""Supervised fine-tuning: LoRA with transformers' Trainer and PEFT, or all linear weights (full.py).

The trainer gets token ids and labels from training/render.py. Rows are grouped by length rather
than packed: packing needs FlashAttention to keep rows apart.
"""

import random
from typing import Any

from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from training import defaults
from training.defaults import Resolved
from training.directory import JobDirectory
from training.job import TrainingJob
from training.methods import full, models, replay
from training.methods.kernels.answer_loss import AnswerLossTrainer
from training.methods.loop.progress import Progress
from training.methods.loop.resume import EarlyStopping, newest
from training.methods.outcome import Trained, finished
from training.render import Ids


def train(
    job: TrainingJob,
    directory: JobDirectory,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Ids],
    validation: list[Ids],
    hyperparameters: Resolved,
) -> Trained:
    """Train, or go on from the last checkpoint; leave the best checkpoint's adapter in `directory.adapter`.

    Args:
        rows, validation: rendered examples.
        hyperparameters: without `auto`.

    Raises:
        TrainingDiverged: the loss became NaN or infinite, or rose far above its start.
        Interrupted: SIGTERM came.
    """
    set_seed(job.seed)
    longest = max(len(row["input_ids"]) for row in (*rows, *validation))
    base = models.load_base(job, longest, hyperparameters.weights)
    rows = rows + _replay_rows(job, directory, base, tokenizer, len(rows), hyperparameters.replay_share)
    random.Random(job.seed).shuffle(rows)
    model = full.unfrozen(base) if hyperparameters.weights == "full" else models.with_adapter(base, job)
    progress = Progress(directory)
    trainer = AnswerLossTrainer(
        model=model,
        args=_arguments(job, directory, hyperparameters, len(rows)),
        train_dataset=rows,  # pyright: ignore[reportArgumentType] (a list is a dataset to a DataLoader)
        eval_dataset=validation,  # pyright: ignore[reportArgumentType]
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[progress, EarlyStopping(defaults.EARLY_STOPPING_PATIENCE)],
    )
    run(trainer, directory, progress)
    if trainer.state.global_step < trainer.state.max_steps:
        directory.event(f"Stopped early at step {trainer.state.global_step}: the validation loss no longer falls")
    checkpoints = progress.checkpoints()
    if hyperparameters.weights == "full":
        keep = full.keep if hyperparameters.keep == "model" else full.extract
        model, checkpoints = keep(trainer, job, directory, checkpoints)
    else:
        model.save_pretrained(str(directory.adapter), safe_serialization=True)
    if hyperparameters.weights == "qlora":
        model = models.as_served(job, longest, directory.adapter)
    return finished(trainer, model, job, directory, tokenizer, hyperparameters, checkpoints)


def run(trainer: Any, directory: JobDirectory, progress: Progress) -> None:
    """Train, from the last checkpoint if there is one, without transformers' own output."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    with progress.interruptible():
        trainer.train(resume_from_checkpoint=newest(directory.checkpoints))


def _replay_rows(
    job: TrainingJob,
    directory: JobDirectory,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    task_rows: int,
    share: float,
) -> list[Ids]:
    if not share:
        return []
    rows = replay.self_answers(
        model, tokenizer, replay.rows_for(share, task_rows), job.seed, directory.path / "replay.json"
    )
    directory.event(f"Replay against forgetting: {len(rows)} of the base's own answers mixed into {task_rows} rows")
    return rows


def _arguments(job: TrainingJob, directory: JobDirectory, hyperparameters: Resolved, rows: int) -> TrainingArguments:
    common = models.arguments(
        job, directory.checkpoints, hyperparameters, evaluate_every=models.steps_an_epoch(rows, hyperparameters)
    )
    return TrainingArguments(
        **common,
        per_device_eval_batch_size=models.MAX_ROWS_A_PASS,
        warmup_steps=models.warmup_steps(rows, hyperparameters),
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        include_num_input_tokens_seen="non_padding",
        metric_for_best_model="eval_loss",
        greater_is_better=False,
    )
