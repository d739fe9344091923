"""DPO with TRL's DPOTrainer and PEFT, on token ids that we render, plus a supervised loss against collapse.

DPO alone may lower the likelihood of both answers, as long as the rejected one's falls faster; a supervised loss on the
preferred answers prevents that ("Iterative Reasoning Preference Optimization", 2024).
"""

from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, set_seed
from trl import DPOConfig, DPOTrainer

from training import defaults
from training.defaults import Resolved
from training.directory import JobDirectory
from training.job import TrainingJob
from training.methods import models
from training.methods.loop.progress import Progress
from training.methods.loop.resume import EarlyStopping, ResumableTrainer
from training.methods.outcome import Trained, finished
from training.methods.supervised import run
from training.render import Ids


class RenderedDPOTrainer(ResumableTrainer, DPOTrainer):
    """DPOTrainer that takes rows as token ids: `prompt_ids`, `chosen_ids`, `rejected_ids`."""

    def _prepare_dataset(self, dataset: Any, *_args: Any, **_kwargs: Any) -> Any:
        return dataset


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
        rows, validation: rows from `render_pair`.

    Raises:
        TrainingDiverged, Interrupted: see `supervised.train`.
    """
    set_seed(job.seed)
    longest = max(
        len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in (*rows, *validation)
    )
    model = models.with_adapter(models.load_base(job, longest), job)
    progress = Progress(directory)
    trainer = RenderedDPOTrainer(
        model=model,
        args=_arguments(job, directory, hyperparameters, len(rows)),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(validation),
        processing_class=tokenizer,
        callbacks=[progress, EarlyStopping(defaults.EARLY_STOPPING_PATIENCE)],
    )
    run(trainer, directory, progress)
    model.delete_adapter("ref")
    model.save_pretrained(str(directory.adapter), safe_serialization=True)
    return finished(trainer, model, job, directory, tokenizer, hyperparameters, progress.checkpoints())


def _arguments(job: TrainingJob, directory: JobDirectory, hyperparameters: Resolved, rows: int) -> DPOConfig:
    share = hyperparameters.supervised_share
    return DPOConfig(
        **models.arguments(
            job, directory.checkpoints, hyperparameters, evaluate_every=models.steps_an_epoch(rows, hyperparameters)
        ),
        per_device_eval_batch_size=models.MAX_ROWS_A_PASS,
        warmup_steps=models.warmup_steps(rows, hyperparameters),
        beta=hyperparameters.beta,
        loss_type=["sigmoid", "sft"] if share else ["sigmoid"],
        loss_weights=[1.0, share] if share else [1.0],
        max_length=None,
        include_num_input_tokens_seen="non_padding",
        metric_for_best_model="eval_loss",
        greater_is_better=False,
    )
