"""Adapters of other trainers: names are put right where that is safe, everything else is left for `validate` to refuse.

Axolotl, Unsloth and LLaMA-Factory write PEFT's own files. What differs in the wild: wrappers left in the names (FSDP,
DDP, torch.compile, checkpointing, PEFT's adapter name), PEFT's prefix left out (torchtune, exports from JAX), and
q/k/v or gate/up trained as one layer. A fused B is cut into rows and the shared A repeated: the same product.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.base import BaseModel
from adapters.files import validate

if TYPE_CHECKING:
    import torch

_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
_LEADING = ("base_model.model.", "module.")
_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "query_key_value": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


def adopt(staged: Path, base: BaseModel) -> None:
    """Rewrite the weights of the folder `staged` under PEFT's names for `base`, where they are not already.

    What is no safetensors file, no tensor of an adapter or of no layer of the base stays as it is.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    path = staged / validate.WEIGHTS
    if not path.is_file():
        return
    try:
        with safe_open(path, framework="pt") as file:
            names = {key: _target(key, base) for key in file.keys()}  # noqa: SIM118 (safe_open has no __iter__)
            fused = any(f".{leaf}.lora_" in target for target in names.values() for leaf in _FUSED)
            if not fused and all(key == target for key, target in names.items()):
                return
            tensors: dict[str, torch.Tensor] = {}
            for key, target in names.items():
                tensors |= _split(target, file.get_tensor(key), base)
    except (SafetensorError, OSError):
        return
    save_file(tensors, path, metadata={"format": "pt"})
    _retarget(staged / validate.CONFIG, tensors)


def _target(key: str, base: BaseModel) -> str:
    """The key as PEFT writes it; fused layers keep their name for `_split`."""
    name = key
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    while leading := next((prefix for prefix in _LEADING if name.startswith(prefix)), None):
        name = name.removeprefix(leading)
    for side in ("A", "B"):
        module, mark, end = name.partition(f".lora_{side}.")
        if mark and (end == "weight" or end.endswith(".weight")):
            for candidate in (module, f"model.{module}"):
                parent, _, leaf = candidate.rpartition(".")
                if candidate in base.shapes or (leaf in _FUSED and f"{parent}.{_FUSED[leaf][0]}" in base.shapes):
                    return f"base_model.model.{candidate}.lora_{side}.weight"
    return key


def _split(key: str, tensor: "torch.Tensor", base: BaseModel) -> "dict[str, torch.Tensor]":
    """A fused layer's tensor as those of its parts; any other as it is."""
    module, _, side = key.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".lora_")
    parent, _, leaf = module.rpartition(".")
    parts = [f"{parent}.{part}" for part in _FUSED.get(leaf, ())]
    if not parts or module in base.shapes or any(part not in base.shapes for part in parts):
        return {key: tensor}
    names = [f"base_model.model.{part}.lora_{side}.weight" for part in parts]
    if side == "A":
        return {name: tensor.clone() for name in names}
    rows = [base.shapes[part][0] for part in parts]
    if tensor.dim() != 2 or tensor.shape[0] != sum(rows):
        return {key: tensor}
    return {name: part.contiguous() for name, part in zip(names, tensor.split(rows), strict=True)}


def _retarget(config: Path, tensors: "dict[str, torch.Tensor]") -> None:
    """Name the layers in the config as the tensors do; a config that is none is refused later."""
    try:
        content = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(content, dict) and isinstance(content.get("target_modules"), list):
        leaves = {key.rpartition(".lora_")[0].rpartition(".")[2] for key in tensors}
        config.write_text(json.dumps({**content, "target_modules": sorted(leaves)}), encoding="utf-8")
