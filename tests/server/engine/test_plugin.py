"""What the plug-in does in an engine's process."""

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from vllm.lora import lora_model

from adapters.files import tensors
from server.engine.plugin import Whole, register


def leaked(read: Callable[[str], object], path: Path) -> int:
    """Bytes that 200 readings of a file leave behind."""
    for _ in range(20):
        read(str(path))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        read(str(path))
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before


def test_reading_adapters_leaks_nothing_and_safetensors_itself_still_does(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({f"t{n}": torch.randn(4, 4) for n in range(50)}, path)

    def with_(opened: Any) -> Callable[[str], object]:
        def read(path: str) -> dict[str, torch.Tensor]:
            with opened(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

        return read

    ours = with_(Whole)(str(path))
    theirs = with_(safe_open)(str(path))
    assert ours.keys() == theirs.keys()  # pyright: ignore
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)  # pyright: ignore
    assert leaked(with_(Whole), path) < 10_000
    assert leaked(with_(safe_open), path) > 200_000, "safetensors leaks no more: Whole can go"
    assert leaked(lambda path: [tensor.finite() for tensor in tensors.read(Path(path))], path) < 10_000


def test_vllm_reads_with_it() -> None:
    register()
    assert lora_model.safetensors.safe_open is Whole
