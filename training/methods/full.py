"""Full fine-tuning of the linear layers; the result is a low-rank adapter or the full model.

vLLM can load an adapter beside others on one base; a full model needs its own engine. Embeddings, norms and head stay
frozen. For an adapter, each layer's difference to the base is reduced to `FULL_RANK` singular values; in our trial rank
16 lost nothing. An event shows the validation loss before and after that.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from adapters.files import full
from training.defaults import FULL_RANK
from training.directory import JobDirectory
from training.job import Checkpoint, TrainingJob
from training.methods.models import load_base

Weights = dict[str, torch.Tensor]


def unfrozen(model: Any) -> Any:
    """The model with its linear layers trainable and the rest frozen."""
    trained = set(_linear(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.removesuffix(".weight") in trained)
    return model


def extract(
    trainer: Any, job: TrainingJob, directory: JobDirectory, checkpoints: list[Checkpoint]
) -> tuple[Any, list[Checkpoint]]:
    """Write adapters of the best weights and of each checkpoint (in `extracted/`); return the base with the first."""
    from peft import PeftModel

    full_loss = trainer.evaluate()["eval_loss"]
    base = load_base(job, 0, "full")
    original: Weights = {f"{name}.weight": base.get_submodule(name).weight.detach() for name in _linear(base)}
    _write(directory.adapter, original, trainer.model.state_dict())
    extracted: list[Checkpoint] = []
    for checkpoint in checkpoints:
        folder = Path("extracted") / Path(checkpoint.directory).name
        _write(
            directory.path / folder, original, load_file(directory.path / checkpoint.directory / "model.safetensors")
        )
        extracted.append(checkpoint.model_copy(update={"directory": str(folder)}))
    model = PeftModel.from_pretrained(base, str(directory.adapter))
    trainer.model = trainer.model_wrapped = model
    kept_loss = trainer.evaluate()["eval_loss"]
    directory.event(
        f"Full fine-tuning kept as an adapter of rank {FULL_RANK}: validation loss {kept_loss:.4f}, with full weights "
        f"{full_loss:.4f}",
        data={"full_weights_valid_loss": full_loss, "extracted_valid_loss": kept_loss},
    )
    return model, extracted


def keep(
    trainer: Any, job: TrainingJob, directory: JobDirectory, checkpoints: list[Checkpoint]
) -> tuple[Any, list[Checkpoint]]:
    """Write models of the best weights and of each checkpoint (in `extracted/`); return base and tuned together."""
    base = load_base(job, 0)
    last = directory.checkpoints / f"checkpoint-{trainer.state.global_step}"
    best = Path(trainer.state.best_model_checkpoint or last)
    _write_model(directory.adapter, job, best, base.dtype)
    kept: list[Checkpoint] = []
    for checkpoint in checkpoints:
        folder = Path("extracted") / Path(checkpoint.directory).name
        _write_model(directory.path / folder, job, directory.path / checkpoint.directory, base.dtype)
        kept.append(checkpoint.model_copy(update={"directory": str(folder)}))
    return BaseAndTuned(base, trainer.model.to(base.dtype)), kept


class BaseAndTuned(torch.nn.Module):
    """A base and a tuned model, for the proof, which expects one model with an adapter that can be turned off."""

    def __init__(self, base: Any, tuned: Any) -> None:
        super().__init__()
        self._base = base.to(tuned.device).eval()
        self._tuned = self._active = tuned

    @property
    def device(self) -> torch.device:
        """The device of both models."""
        return self._tuned.device

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Use the base within the block."""
        self._active = self._base
        try:
            yield
        finally:
            self._active = self._tuned

    def get_base_model(self) -> Any:
        """The transformers model that is active now."""
        return self._active

    def generate(self, **inputs: Any) -> Any:
        """See transformers."""
        return self._active.generate(**inputs)

    def forward(self, **inputs: Any) -> Any:
        """See transformers."""
        return self._active(**inputs)


def _write_model(folder: Path, job: TrainingJob, checkpoint: Path, dtype: torch.dtype) -> None:
    """Write the checkpoint's weights in the base's number format, and the base's configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(checkpoint / "model.safetensors").items()}
    save_file(tensors, folder / full.WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(job.base_path / full.CONFIG, folder / full.CONFIG)


def _linear(model: Any) -> list[str]:
    head = model.get_output_embeddings()
    return [
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head
    ]


def _write(folder: Path, original: Weights, tuned: Weights) -> None:
    """Write the difference in PEFT's files: B (out, rank) and A (rank, in), with the singular values' roots in each."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: Weights = {}
    for name, weight in original.items():
        u, s, v = torch.linalg.svd(tuned[name].to(weight.device).float() - weight.float(), full_matrices=False)
        root = s[:FULL_RANK].sqrt()
        key = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{key}.lora_B.weight"] = (u[:, :FULL_RANK] * root).contiguous()
        tensors[f"{key}.lora_A.weight"] = (v[:FULL_RANK] * root[:, None]).contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": FULL_RANK,
        "lora_alpha": FULL_RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.removesuffix(".weight").rpartition(".")[2] for name in original}),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
