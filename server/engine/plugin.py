"""vLLM plug-in: what must hold in the engine's process, on any device.

Registered as entry point `tuneport` in group `vllm.general_plugins`, which vLLM loads in every process of an engine.
"""

from pathlib import Path
from types import SimpleNamespace

import safetensors.torch
import torch
from vllm.lora import lora_model
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
from vllm.platforms import current_platform

from server.engine import lora_cpu, seeds
from server.inference.orphans import end_with_server


def register() -> None:
    """Entry point: end with the server, read adapters without a leak; on a CPU compute them right and take seeds."""
    end_with_server()
    lora_model.safetensors = SimpleNamespace(safe_open=Whole)
    lora_cpu.register()
    seeds.register()
    if current_platform.is_cpu():
        _leave_experts_alone()


def _leave_experts_alone() -> None:
    """Mixture of experts on a CPU: adapters sit on the other layers, and the experts keep the CPU's own kernel.

    Where any adapter is served, vLLM picks the kernel that has adapters on experts, which is Triton's and ends the
    engine at the first request on a CPU. The experts are no layers of `lora_target_modules` (vllm.py).
    """
    begin = FusedMoEConfig.__post_init__

    def begin_without_adapters(self: FusedMoEConfig) -> None:
        self.is_lora_enabled = False
        begin(self)

    FusedMoEConfig.__post_init__ = begin_without_adapters


class Whole:
    """What vLLM reads an adapter's file with, in place of `safetensors.safe_open`.

    That one leaks 64 bytes a tensor where it hands them to torch, 27 KB for each load of a rank on all linear layers of
    30, and a server that evicts and loads all day never gets them back.
    """

    def __init__(self, path: str, framework: str) -> None:
        self._tensors = safetensors.torch.load(Path(path).read_bytes())

    def __enter__(self) -> "Whole":
        return self

    def __exit__(self, *_: object) -> None:
        self._tensors = {}

    def keys(self) -> list[str]:
        """Names, as in the file."""
        return list(self._tensors)

    def get_tensor(self, name: str) -> torch.Tensor:
        """A tensor of its own memory."""
        return self._tensors[name]
