"""Nothing unvalidated reaches the engine: every config key and every tensor of an adapter against the base's weights.

vLLM 0.32 answers 200 with nonsense for another base's hidden size, extra layers, NaN weights and pickles, and dies in a
step on others; so all of it is refused here, by name, before the engine sees a byte.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel as Schema
from pydantic import ConfigDict, Field, ValidationError

from adapters.base import BaseModel
from adapters.errors import InvalidAdapter
from adapters.files import full, tensors
from adapters.manifest import Manifest

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 1_000_000
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
UNWRAPPED = {"embed_tokens", "lm_head", "wte"}  # the engine leaves these alone: wrapping them costs every step

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Limits:
    """What the engine was started for.

    Attributes:
        max_rank: highest LoRA rank.
        max_bytes: largest weights file, in bytes.
        max_adapters: how many may be registered.
        full_models: whether full weights are served too.
    """

    max_rank: int
    max_bytes: int = 2 * 1024**3
    max_adapters: int = 10_000
    full_models: bool = False


@dataclass(frozen=True)
class AdapterInfo:
    """What a validated adapter is: its highest rank (0: full weights), its weights' size in bytes, its manifest."""

    rank: int
    bytes: int
    manifest: Manifest


class _Config(Schema):
    """The keys of PEFT's adapter_config.json that change what the weights mean; types as PEFT writes them."""

    model_config = ConfigDict(extra="ignore")

    peft_type: Literal["LORA"]
    r: int = Field(ge=1)
    lora_alpha: float = Field(gt=0, allow_inf_nan=False)
    base_model_name_or_path: str | None = None
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    layers_to_transform: list[int] | int | None = None
    bias: str = "none"
    lora_bias: bool = False
    use_dora: bool = False
    modules_to_save: list[str] | None = None
    init_lora_weights: bool | str | None = True
    layer_replication: list[list[int]] | None = None
    alora_invocation_tokens: list[int] | None = None
    target_parameters: list[str] | None = None


def check(directory: Path, base: BaseModel, limits: Limits) -> AdapterInfo:
    """Validate the adapter in `directory` against `base`.

    Raises:
        InvalidAdapter: it must not be served; the message names the tensor, key or file and says what to do.
    """
    manifest = Manifest.read(directory)
    if manifest.base_model is not None and manifest.base_model != base.name:
        raise InvalidAdapter("manifest.json.base_model", f"is {manifest.base_model!r}; this server runs {base.name!r}")
    if (directory / full.WEIGHTS).is_file():
        if not limits.full_models:
            raise InvalidAdapter(full.WEIGHTS, "is a full model; this server serves none (max_full_models is 0)")
        return AdapterInfo(0, full.check(directory, base), manifest)
    config = _read_config(directory / CONFIG, base, limits)
    weights = directory / WEIGHTS
    if not weights.is_file():
        pickled = [name for name in PICKLES if (directory / name).exists()]
        if pickled:
            raise InvalidAdapter(
                pickled[0],
                "is a pickle, which can run code when it is read; load the adapter with PEFT and save it again "
                "with save_pretrained(…, safe_serialization=True)",
            )
        raise InvalidAdapter(WEIGHTS, "is missing")
    size = weights.stat().st_size
    if size > limits.max_bytes:
        raise InvalidAdapter(WEIGHTS, f"has {size} bytes; at most {limits.max_bytes} are allowed")
    return AdapterInfo(_check_tensors(weights, config, base, limits), size, manifest)


def _read_config(path: Path, base: BaseModel, limits: Limits) -> _Config:
    if not path.is_file():
        raise InvalidAdapter(CONFIG, "is missing; expected a folder written by PEFT's save_pretrained")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise InvalidAdapter(CONFIG, f"has {path.stat().st_size} bytes; at most {MAX_CONFIG_BYTES} are allowed")
    try:
        config = _Config.model_validate(json.loads(path.read_bytes()), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidAdapter(".".join([CONFIG, *map(str, first["loc"])]), first["msg"]) from error
    except (ValueError, RecursionError) as error:
        raise InvalidAdapter(CONFIG, f"is not JSON: {error}") from error
    unsupported: dict[str, Any] = {
        "use_dora": config.use_dora,
        "lora_bias": config.lora_bias,
        "bias": config.bias != "none",
        "modules_to_save": config.modules_to_save,
        "layer_replication": config.layer_replication,
        "alora_invocation_tokens": config.alora_invocation_tokens,
        "target_parameters": config.target_parameters,
        "init_lora_weights": str(config.init_lora_weights).lower().startswith(("pissa", "olora", "corda", "loftq")),
    }
    for key, used in unsupported.items():
        if used:
            raise InvalidAdapter(
                f"{CONFIG}.{key}",
                "is not supported; plain LoRA and rsLoRA on linear layers are. Train without it, or merge it into "
                "the base and extract a plain LoRA",
            )
    patterns = {f"rank_pattern.{key}": rank for key, rank in (config.rank_pattern or {}).items()}
    for key, rank in {"r": config.r, **patterns}.items():
        if not 1 <= rank <= limits.max_rank:
            raise InvalidAdapter(
                f"{CONFIG}.{key}",
                f"is rank {rank}; this server serves 1 to {limits.max_rank} (restart it with --max-lora-rank)",
            )
    for key, alpha in (config.alpha_pattern or {}).items():
        if not math.isfinite(alpha):
            raise InvalidAdapter(f"{CONFIG}.alpha_pattern.{key}", f"is {alpha}; expected a finite number")
    trained_on = config.base_model_name_or_path
    if trained_on and not base.is_named(trained_on):
        raise InvalidAdapter(
            f"{CONFIG}.base_model_name_or_path",
            f"is {config.base_model_name_or_path!r}; this server runs {base.name!r}. If they are the same model, "
            "write that name there",
        )
    return config


def _check_tensors(weights: Path, config: _Config, base: BaseModel, limits: Limits) -> int:
    from safetensors import SafetensorError

    targets = {module: shape for module, shape in base.shapes.items() if module.rsplit(".", 1)[-1] not in UNWRAPPED}
    ranks: dict[str, dict[str, int]] = {}
    try:
        for tensor in tensors.read(weights):
            key = tensor.name
            module, side = _parse(key)
            if module not in targets:
                raise InvalidAdapter(key, f"{base.name} has no linear layer {module!r} that can take an adapter")
            if tensor.dtype not in tensors.EXPONENTS:
                raise InvalidAdapter(key, f"has dtype {tensor.dtype}; expected one of {', '.join(tensors.EXPONENTS)}")
            ranks.setdefault(module, {})[side] = _rank(key, side, tensor.shape, targets[module], limits)
            if not tensor.finite():
                raise InvalidAdapter(key, "holds NaN or Inf; the training diverged, or the file is damaged")
    except (SafetensorError, OSError) as error:
        raise InvalidAdapter(WEIGHTS, f"is damaged or no safetensors file: {error}") from error
    if not ranks:
        raise InvalidAdapter(WEIGHTS, "holds no tensors")
    for module, sides in ranks.items():
        for side, other in (("A", "B"), ("B", "A")):
            if side not in sides:
                raise InvalidAdapter(f"{_PREFIX}{module}.lora_{side}.weight", f"is missing beside lora_{other}")
        if sides["A"] != sides["B"]:
            raise InvalidAdapter(
                f"{_PREFIX}{module}.lora_B.weight", f"has rank {sides['B']}, but lora_A has {sides['A']}"
            )
    if config.layers_to_transform is None:
        leaves = {module.rsplit(".", 1)[-1] for module in ranks}
        for module in targets:
            if module.rsplit(".", 1)[-1] in leaves and module not in ranks:
                raise InvalidAdapter(
                    f"{_PREFIX}{module}.lora_A.weight",
                    f"is missing: {base.name} has more layers than the adapter (layers_to_transform is not set)",
                )
    return max(sides["A"] for sides in ranks.values())


def _parse(key: str) -> tuple[str, str]:
    for side in ("A", "B"):
        suffix = f".lora_{side}.weight"
        if key.startswith(_PREFIX) and key.endswith(suffix):
            return key.removeprefix(_PREFIX).removesuffix(suffix), side
    raise InvalidAdapter(key, f"unknown tensor; expected {_PREFIX}<module>.lora_A.weight or .lora_B.weight")


def _rank(key: str, side: str, shape: list[int], linear: tuple[int, int], limits: Limits) -> int:
    out_features, in_features = linear
    rank, fixed = (0, in_features) if side == "A" else (1, out_features)
    expected = f"(rank, {in_features})" if side == "A" else f"({out_features}, rank)"
    if len(shape) != 2 or shape[1 - rank] != fixed:
        raise InvalidAdapter(key, f"has shape {tuple(shape)}; expected {expected}")
    if not 1 <= shape[rank] <= limits.max_rank:
        raise InvalidAdapter(key, f"has rank {shape[rank]}; this server serves 1 to {limits.max_rank}")
    return shape[rank]
