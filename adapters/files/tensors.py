"""A safetensors file's tensors without torch: name, dtype, shape, and whether every value is a number.

safetensors (0.5 to 0.8) leaks 64 bytes for each tensor that it hands to torch, too much for a server that validates
thousands of adapters. So the library only checks the header, and we read the values from the mapped file.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

EXPONENTS = {"F32": ("<u4", 0x7F80_0000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}  # all ones: NaN or Inf
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file; `dtype` is safetensors' name of it (F32, BF16, ...)."""

    name: str
    dtype: str
    shape: list[int]
    content: "np.ndarray[Any, Any]"

    def finite(self) -> bool:
        """Whether no value is NaN or infinite; `dtype` must be in `EXPONENTS`."""
        kind, exponent = EXPONENTS[self.dtype]
        bits = self.content.view(kind)
        parts = (bits[start : start + _AT_ONCE] for start in range(0, len(bits), _AT_ONCE))
        return not any(((part & exponent) == exponent).any() for part in parts)


def read(path: Path) -> Iterator[Tensor]:
    """The tensors of a file; the library checks the header first, and the values are read only when used.

    Raises:
        SafetensorError, OSError: the file is damaged, or not a safetensors file.
    """
    import numpy as np
    from safetensors import safe_open

    with safe_open(path, framework="np"):
        described = headers(path)
    content = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    for name, entry in described.items():
        begin, end = entry["data_offsets"]
        yield Tensor(name, entry["dtype"], entry["shape"], content[start + begin : start + end])


def headers(file: Path) -> dict[str, dict[str, Any]]:
    """The header of a safetensors file: each tensor's `shape`, `dtype` and `data_offsets`."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header
