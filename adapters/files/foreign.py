"""Adapters of other trainers: converted to PEFT's form where that is safe; `validate` refuses the rest.

Axolotl, Unsloth and LLaMA-Factory write PEFT's own files. Others leave wrappers in the names (FSDP, DDP, torch.compile,
checkpointing, PEFT's adapter name), leave PEFT's prefix out (torchtune, exports from JAX), or train q/k/v or gate/up as
one layer. For such a fused layer, B is cut into rows and the shared A repeated, which gives the same product. Copies of
the base's embeddings, which PEFT saves beside the LoRA, are left out.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from adapters import manifest
from adapters.base import BaseModel
from adapters.errors import InvalidAdapter
from adapters.files import config, documents, validate

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
    """Rewrite the files in folder `staged` as PEFT would have written them for `base`, where they differ.

    JSON becomes plain UTF-8, tensors get PEFT's names. A file that is not safetensors stays as it is, and so does a
    tensor that belongs to no adapter or to no layer of the base.

    Raises:
        InvalidAdapter: config or manifest are no text, the config is no JSON object, or two tensors get the same name.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    config.make_loadable(staged / config.FILENAME)
    if (staged / manifest.FILENAME).is_file():
        documents.make_plain(staged / manifest.FILENAME)
    path = staged / validate.WEIGHTS
    if not path.is_file():
        return
    try:
        with safe_open(path, framework="pt") as file:
            names = {
                key: _target(key, base)
                for key in file.keys()  # noqa: SIM118 (safe_open has no __iter__)
                if not (kept := _embeddings(key, base)) or not _same(file.get_tensor(key), kept, base)
            }
            fused = {leaf for target in names.values() for leaf in _FUSED if f".{leaf}.lora_" in target}
            if not fused and [*names.items()] == [(key, key) for key in file.keys()]:  # noqa: SIM118
                return
            tensors: dict[str, torch.Tensor] = {}
            came: dict[str, str] = {}
            for key, target in names.items():
                for name, tensor in _split(target, file.get_tensor(key), base).items():
                    if name in came:
                        raise InvalidAdapter(
                            key,
                            f"is the same weight as {came[name]}: the file holds two adapters, or one twice. Save the "
                            "one that is meant with PEFT's save_pretrained(…, selected_adapters=[…])",
                        )
                    came[name], tensors[name] = key, tensor
    except (SafetensorError, OSError):
        return
    save_file(tensors, path, metadata={"format": "pt"})
    _retarget(staged / config.FILENAME, {leaf for leaf in fused if not any(f".{leaf}.lora_" in key for key in tensors)})


def _target(key: str, base: BaseModel) -> str:
    """The tensor's name as PEFT writes it; fused layers keep theirs, for `_split`."""
    name = _unwrapped(key)
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


def _embeddings(key: str, base: BaseModel) -> str | None:
    """The base's embedding or head that, by its name, this tensor copies; None: neither. PEFT may save such copies."""
    name = _unwrapped(key).removeprefix("base_model.model.").replace(".base_layer.", ".").removesuffix(".weight")
    if name.rpartition(".")[2] not in validate.UNWRAPPED:
        return None
    tied = next((module for module in base.shapes if module.endswith("embed_tokens")), None)
    return name if name in base.shapes else tied


def _same(tensor: "torch.Tensor", module: str, base: BaseModel) -> bool:
    """Whether the tensor equals the base's, in whatever number format."""
    from safetensors import safe_open

    for path in sorted(base.path.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if f"{module}.weight" in file.keys():  # noqa: SIM118
                own = file.get_tensor(f"{module}.weight")
                return own.shape == tensor.shape and bool((own.to(tensor.dtype) == tensor).all())
    return False


def _split(key: str, tensor: "torch.Tensor", base: BaseModel) -> "dict[str, torch.Tensor]":
    """A fused layer's tensor split into those of its parts; any other tensor unchanged."""
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


def _retarget(path: Path, split: set[str]) -> None:
    """Give the config's layers the tensors' names: without wrappers, and the parts of each fused layer in `split`."""
    if not path.is_file():
        return
    content = documents.read(path)
    for key in ("target_modules", "exclude_modules"):
        named = content.get(key)
        if isinstance(named, list):
            content[key] = sorted({part for name in named for part in _parts(str(name), split)})
        elif isinstance(named, str):
            content[key] = _as_pattern(named, split)
    for key in ("rank_pattern", "alpha_pattern"):
        if isinstance(named := content.get(key), dict):
            content[key] = {_as_pattern(name, split): value for name, value in named.items()}
    if content != documents.read(path):
        documents.write(path, content)


def _parts(name: str, split: set[str]) -> list[str]:
    parent, dot, leaf = _unwrapped(name).rpartition(".")
    return [f"{parent}{dot}{part}" for part in (_FUSED[leaf] if leaf in split else (leaf,))]


def _as_pattern(pattern: str, split: set[str]) -> str:
    """The regular expression with each fused layer's name replaced by those of its parts."""
    for leaf in split:
        pattern = pattern.replace(leaf, f"(?:{'|'.join(_FUSED[leaf])})")
    return _unwrapped(pattern)


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name
