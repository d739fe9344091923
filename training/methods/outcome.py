"""What a method returns: the trained model in memory, for the proof, and the job's result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from training.defaults import Resolved
from training.directory import JobDirectory
from training.job import Checkpoint, Result, TrainingJob
from training.methods.models import write_manifest


@dataclass(frozen=True)
class Trained:
    """A method's output; `model` is a PEFT model whose adapter is the result, and which is the base without it."""

    model: Any
    result: Result


def finished(
    trainer: Any,
    model: Any,
    job: TrainingJob,
    directory: JobDirectory,
    tokenizer: PreTrainedTokenizerBase,
    hyperparameters: Resolved,
    checkpoints: list[Checkpoint],
) -> Trained:
    """Write the adapters' manifests; return the model and the result."""
    for adapter in (directory.adapter, *(directory.path / checkpoint.directory for checkpoint in checkpoints)):
        write_manifest(adapter, job, tokenizer)
    best = Path(trainer.state.best_model_checkpoint or f"checkpoint-{trainer.state.global_step}").name
    model.eval()
    return Trained(
        model,
        Result(
            trained_tokens=int(trainer.state.num_input_tokens_seen),
            best_step=int(best.rpartition("-")[2]),
            checkpoints=checkpoints,
            hyperparameters=hyperparameters.wire(job.method),
        ),
    )
