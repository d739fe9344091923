"""Adapters with random weights: the same work as trained ones, without training. For benches and tests."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapters.base import BaseModel

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def random_adapters(
    model: Path, root: Path, count: int, *, rank: int, modules: tuple[str, ...] = LINEAR, first_seed: int = 0
) -> list[Path]:
    """Write different adapters into folders under `root`; return the folders."""
    root.mkdir(parents=True, exist_ok=True)
    make = noise_adapter(lambda: Path(tempfile.mkdtemp(prefix="adapter-", dir=root.absolute())))
    base = BaseModel.read(model)
    return [make(base, seed=first_seed + number, rank=rank, modules=modules) for number in range(count)]


def noise_adapter(new_folder: Callable[[], Path]) -> Callable[..., Path]:
    """A function that writes adapters with random weights in PEFT's files, large enough to change greedy answers.

    Keyword arguments: `seed`, `rank`, `scale`, `modules` (leaf names), `config` (keys to add or change) and `edit`,
    which may change the tensors before they are saved.
    """

    def make(
        base: BaseModel,
        *,
        seed: int = 0,
        rank: int = 8,
        scale: float = 0.02,
        modules: tuple[str, ...] = ("q_proj", "v_proj", "down_proj"),
        config: dict[str, Any] | None = None,
        edit: Callable[[dict[str, Any]], Any] = lambda tensors: None,
    ) -> Path:
        import torch
        from safetensors.torch import save_file

        generator = torch.Generator().manual_seed(seed)
        tensors: dict[str, Any] = {}
        for module, (out_features, in_features) in base.shapes.items():
            if module.rsplit(".", 1)[-1] in modules:
                key = f"base_model.model.{module}.lora_"
                tensors[f"{key}A.weight"] = torch.randn(rank, in_features, generator=generator) * scale
                tensors[f"{key}B.weight"] = torch.randn(out_features, rank, generator=generator) * scale
        edit(tensors)
        folder = new_folder()
        save_file(tensors, folder / "adapter_model.safetensors")
        content = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": rank,
            "lora_alpha": 2 * rank,
            "target_modules": list(modules),
            "bias": "none",
            "base_model_name_or_path": base.name,
            **(config or {}),
        }
        (folder / "adapter_config.json").write_text(json.dumps(content))
        return folder

    return make
