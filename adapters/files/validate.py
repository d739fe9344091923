"""Checks every config key and tensor of an adapter against the base's weights, before the engine reads anything.

With another base's hidden size, extra layers, NaN weights or pickles, vLLM 0.32 answers 200 with nonsense, or dies in a
model step. All of these are refused here, with the key or tensor named.
"""

from dataclasses import dataclass
from pathlib import Path

from adapters.base import BaseModel
from adapters.chat import apart
from adapters.errors import InvalidAdapter
from adapters.files import config, full, tensors
from adapters.files.targets import Targets
from adapters.manifest import Manifest

CONFIG = config.FILENAME
WEIGHTS = "adapter_model.safetensors"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
# The engine puts no adapters on these, since that would slow down every step.
UNWRAPPED = {"embed_in", "embed_out", "embed_tokens", "lm_head", "wte"}

_PREFIX = "base_model.model."
_HEADS = ("lm_head",)  # a base that ties it to its embeddings has no weights under this name
# In some versions of transformers, experts and their router are linear layers; in others they are plain parameters,
# which PEFT does not find by name.
_EXPERTS = "experts"
_ROUTED = (_EXPERTS, "gate", "router")


@dataclass(frozen=True)
class Limits:
    """Limits on adapters; the engine was started with them.

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
    """A validated adapter: its highest rank (0: full weights), its weights' size in bytes, its manifest."""

    rank: int
    bytes: int
    manifest: Manifest


def check(directory: Path, base: BaseModel, limits: Limits) -> AdapterInfo:
    """Validate the adapter in `directory` against `base`.

    Raises:
        InvalidAdapter: the adapter must not be served; the message names the tensor, key or file and says what to do.
    """
    manifest = Manifest.read(directory)
    if manifest.base_model is not None and not base.is_named(manifest.base_model):
        raise InvalidAdapter("manifest.json.base_model", f"is {manifest.base_model!r}; this server runs {base.name!r}")
    if manifest.chat_template is not None and (fault := apart.fault(manifest.chat_template)):
        raise InvalidAdapter("manifest.json.chat_template", f"is {fault}")
    if (directory / full.WEIGHTS).is_file():
        if not limits.full_models:
            raise InvalidAdapter(full.WEIGHTS, "is a full model; this server serves none (max_full_models is 0)")
        return AdapterInfo(0, full.check(directory, base), manifest)
    settings = config.read(directory / CONFIG, base, limits.max_rank)
    weights = directory / WEIGHTS
    if not weights.is_file():
        pickled = [name for name in PICKLES if (directory / name).exists()]
        if pickled:
            raise InvalidAdapter(
                pickled[0],
                "is a pickle, which can run code when it is read; load the adapter with PEFT and save it again "
                "with save_pretrained(…, safe_serialization=True)",
            )
        raise InvalidAdapter(
            WEIGHTS, "is missing; expected all weights in this one file, as PEFT's save_pretrained writes it"
        )
    size = weights.stat().st_size
    if size > limits.max_bytes:
        raise InvalidAdapter(WEIGHTS, f"has {size} bytes; at most {limits.max_bytes} are allowed")
    return AdapterInfo(_check_tensors(weights, settings, base, limits), size, manifest)


def _check_tensors(weights: Path, settings: config.Config, base: BaseModel, limits: Limits) -> int:
    from safetensors import SafetensorError

    layers = {module: shape for module, shape in base.shapes.items() if module.rsplit(".", 1)[-1] not in UNWRAPPED}
    ranks: dict[str, dict[str, int]] = {}
    try:
        for tensor in tensors.read(weights):
            key = tensor.name
            module, side = _parse(key)
            if _EXPERTS in module.split("."):
                raise InvalidAdapter(
                    key,
                    "is of an expert, and the engine leaves experts as they are; adapters on attention and on layers "
                    "that all tokens pass are served. Train without the experts among the targets",
                )
            if module not in layers:
                raise InvalidAdapter(key, f"{base.name} has no linear layer {module!r} that can take an adapter")
            if tensor.dtype not in tensors.EXPONENTS:
                raise InvalidAdapter(key, f"has dtype {tensor.dtype}; expected one of {', '.join(tensors.EXPONENTS)}")
            ranks.setdefault(module, {})[side] = _rank(key, side, tensor.shape, layers[module], limits)
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
    _check_agreement({module: sides["A"] for module, sides in ranks.items()}, settings, base)
    return max(sides["A"] for sides in ranks.values())


def _check_agreement(ranks: dict[str, int], settings: config.Config, base: BaseModel) -> None:
    """Check that the config names exactly the layers with tensors, and their ranks, from which the scale follows."""
    targets = Targets(settings)
    targets.check_patterns()
    meant = targets.among({*base.shapes, *_HEADS})
    if not meant:
        raise InvalidAdapter(
            f"{CONFIG}.target_modules", f"{_listed(settings.target_modules)} names no layer of {base.name}"
        )
    for module, rank in ranks.items():
        if module not in meant:
            raise InvalidAdapter(
                f"{_PREFIX}{module}.lora_A.weight",
                f"is of a layer that {CONFIG} does not mean: {_meaning(settings)}. Put right which of the two is wrong",
            )
        said, key = targets.rank(module)
        if rank != said:
            raise InvalidAdapter(
                f"{_PREFIX}{module}.lora_A.weight", f"has rank {rank}, but {key} in {CONFIG} is {said}; put it right"
            )
        targets.scale(module)
    for module in sorted(meant - ranks.keys()):
        if not any(part in _ROUTED for part in module.split(".")):
            raise InvalidAdapter(
                f"{_PREFIX}{module}.lora_A.weight",
                f"is missing: {CONFIG} means {len(meant)} layers of {base.name} ({_meaning(settings)}), and {WEIGHTS} "
                f"has tensors for {len(ranks)}",
            )


def _meaning(settings: config.Config) -> str:
    """The config keys that choose layers, with their values, for a message."""
    said = {
        "target_modules": _listed(settings.target_modules),
        "exclude_modules": _listed(settings.exclude_modules),
        "layers_to_transform": settings.layers_to_transform,
        "layers_pattern": settings.layers_pattern,
    }
    return ", ".join(f"{key} is {value}" for key, value in said.items() if value not in (None, [], "", "[]"))


def _listed(names: list[str] | str) -> str:
    return repr(names if isinstance(names, str) else sorted(names))


def _parse(key: str) -> tuple[str, str]:
    """The layer of a tensor, and whether it is LoRA's A or B.

    Raises:
        InvalidAdapter: it is neither.
    """
    for side in ("A", "B"):
        suffix = f".lora_{side}.weight"
        if key.startswith(_PREFIX) and key.endswith(suffix):
            return key.removeprefix(_PREFIX).removesuffix(suffix), side
    if ".lora_embedding_" in key:
        raise InvalidAdapter(key, "is LoRA of an embedding; linear layers' is served. Train without it as a target")
    if UNWRAPPED & set(key.split(".")):
        raise InvalidAdapter(
            key,
            "is a whole embedding or head, and not the base's own: it was trained, or resized for new tokens, and only "
            "LoRA is served. Train without modules_to_save and new tokens, and save with save_embedding_layers=False",
        )
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
