"""PEFT's adapter_config.json: the keys that change what the weights mean, and whether the engine can serve them."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel as Schema
from pydantic import ConfigDict, Field, ValidationError

from adapters.base import BaseModel
from adapters.errors import InvalidAdapter
from adapters.files import documents

FILENAME = "adapter_config.json"
MAX_PATTERNS = 5_000  # the engine compiles them, 1 ms each, and answers nobody meanwhile
LARGEST_SCALE = 65_504  # the largest fp16 number; the engine multiplies B by the scale and keeps the product

# Values that only choose LoRA's initial weights, as in vLLM 0.32's PEFTHelper; the others change the base too.
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_UNSUPPORTED = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "alora_invocation_tokens",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "kasa_config",
    "monteclora_config",
    "arrow_config",
)


class Config(Schema):
    """What PEFT 0.21 and vLLM 0.32 read from the file, with PEFT's types."""

    model_config = ConfigDict(extra="ignore", strict=True)

    peft_type: Literal["LORA"]
    r: int = Field(ge=1)
    lora_alpha: float = Field(gt=0)
    use_rslora: bool = False
    base_model_name_or_path: str | None = None
    target_modules: list[str] | str
    exclude_modules: list[str] | str = []
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str = []
    rank_pattern: dict[str, int] = Field(default={}, max_length=MAX_PATTERNS)
    alpha_pattern: dict[str, float] = Field(default={}, max_length=MAX_PATTERNS)
    init_lora_weights: bool | str = True
    bias: str = "none"


def read(path: Path, base: BaseModel, max_rank: int) -> Config:
    """Read the file and check everything that does not depend on the weights.

    Args:
        max_rank: highest LoRA rank that the engine serves.

    Raises:
        InvalidAdapter: the adapter must not be served; the message names the key, its value and what to do.
    """
    if not path.is_file():
        raise InvalidAdapter(FILENAME, "is missing; name the folder that PEFT's save_pretrained wrote, unpacked")
    content = {key: value for key, value in documents.read(path).items() if value is not None}
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        raise documents.unfit(FILENAME, content, error) from error
    _check_supported(config, content)
    _check_base(config, base)
    if isinstance(config.target_modules, str) and config.layers_to_transform not in (None, []):
        raise InvalidAdapter(
            f"{FILENAME}.layers_to_transform",
            f"is {config.layers_to_transform} beside target_modules {config.target_modules!r}; PEFT takes it beside a "
            "list of names only",
        )
    if config.layers_pattern and config.layers_to_transform is None:
        raise InvalidAdapter(
            f"{FILENAME}.layers_pattern", f"is {config.layers_pattern!r} without layers_to_transform, as PEFT wants it"
        )
    patterns = {f"rank_pattern.{key}": rank for key, rank in config.rank_pattern.items()}
    for key, rank in {"r": config.r, **patterns}.items():
        if not 1 <= rank <= max_rank:
            raise InvalidAdapter(
                f"{FILENAME}.{key}",
                f"is rank {rank}; this server serves 1 to {max_rank} (restart it with --max-lora-rank)",
            )
    return config


def make_loadable(path: Path) -> None:
    """Rewrite the file, if there is one, so that PEFT and the engine can read it; its meaning stays the same.

    Raises:
        InvalidAdapter: the file holds no JSON object; see `documents.read`.
    """
    if not path.is_file():
        return
    documents.make_plain(path, ascii_only=True)
    content = documents.read(path)
    if "bias" in content and content["bias"] is None:  # null means no bias to PEFT, but a bias to vLLM
        del content["bias"]
        documents.write(path, content)


def _check_supported(config: Config, content: dict[str, Any]) -> None:
    starts = config.init_lora_weights
    unsupported = [key for key in _UNSUPPORTED if content.get(key)]
    if config.bias != "none":
        unsupported.append("bias")
    if isinstance(starts, str) and starts.lower() not in _PLAIN_STARTS:
        unsupported.append("init_lora_weights")
    for key in unsupported:
        raise InvalidAdapter(
            f"{FILENAME}.{key}",
            f"is {documents.shown(content[key])}, which is not supported; plain LoRA and rsLoRA on linear layers are. "
            "Train without it, or merge it into the base and extract a plain LoRA",
        )


def _check_base(config: Config, base: BaseModel) -> None:
    trained_on = config.base_model_name_or_path
    if trained_on and not base.is_named(trained_on):
        raise InvalidAdapter(
            f"{FILENAME}.base_model_name_or_path",
            f"is {trained_on!r}; this server runs {base.name!r}. If they are the same model, write that name there",
        )
