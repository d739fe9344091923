"""Full weights: the result of a full fine-tuning, with the base's shapes, served by its own engine.

It is registered, stored and named as adapters are, with rank 0. vLLM reads the weights with the base's configuration
and tokenizer, so the folder's `config.json` must equal the base's, byte for byte.
"""

import math
from pathlib import Path

from adapters.base import BaseModel
from adapters.errors import InvalidAdapter
from adapters.files import tensors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def check(directory: Path, base: BaseModel) -> int:
    """Validate the model in `directory` against `base`; return its weights' size in bytes.

    Raises:
        InvalidAdapter: the model must not be served; the message names the tensor or file.
    """
    from safetensors import SafetensorError

    config, weights = directory / CONFIG, directory / WEIGHTS
    if not config.is_file() or config.read_bytes() != (base.path / CONFIG).read_bytes():
        raise InvalidAdapter(CONFIG, f"is not that of {base.name}; copy the base's file beside the weights")
    expected = _shapes(base)
    try:
        found = {tensor.name: tensor for tensor in tensors.read(weights)}
    except (SafetensorError, OSError) as error:
        raise InvalidAdapter(WEIGHTS, f"is damaged or no safetensors file: {error}") from error
    for name in sorted(found.keys() | expected.keys()):
        if name not in expected:
            raise InvalidAdapter(name, f"unknown tensor; {base.name} has none of that name")
        if name not in found:
            raise InvalidAdapter(name, f"is missing; {base.name} has it")
        tensor = found[name]
        if tensor.dtype not in tensors.EXPONENTS:
            raise InvalidAdapter(name, f"has dtype {tensor.dtype}; expected one of {', '.join(tensors.EXPONENTS)}")
        if tensor.shape != expected[name]:
            raise InvalidAdapter(name, f"has shape {tensor.shape}; expected {expected[name]}")
        if not tensor.finite():
            raise InvalidAdapter(name, "holds NaN or Inf; the training diverged, or the file is damaged")
    return weights.stat().st_size


def largest(base: BaseModel) -> int:
    """Most bytes that full weights of the base can have: all in fp32, and a header."""
    return 4 * sum(map(math.prod, _shapes(base).values())) + (1 << 20)


def _shapes(base: BaseModel) -> dict[str, list[int]]:
    files = base.path.glob("*.safetensors")
    return {name: entry["shape"] for file in files for name, entry in tensors.headers(file).items()}
