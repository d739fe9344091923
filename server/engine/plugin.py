"""vLLM plug-in: changes that every process of an engine needs.

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
    """Entry point: end with the server, read adapters without a leak; on a CPU also fix LoRA, seeds and experts."""
    end_with_server()
    lora_model.safetensors = SimpleNamespace(safe_open=Whole)
    lora_cpu.register()
    seeds.register()
    if current_platform.is_cpu():
        _leave_experts_alone()


def _leave_experts_alone() -> None:
    """Mixture of experts on a CPU: adapters go on the other layers, and the experts keep the CPU's own kernel.

    If adapters are served, vLLM picks the kernel for adapters on experts; it is Triton's, and on a CPU the first
    request ends the engine. The experts are not among `lora_target_modules` (vllm.py).
    """
    begin = FusedMoEConfig.__post_init__

    def begin_without_adapters(self: FusedMoEConfig) -> None:
        self.is_lora_enabled = False
        begin(self)

    FusedMoEConfig.__post_init__ = begin_without_adapters


class Whole:
    """Replaces `safetensors.safe_open`, with which vLLM reads an adapter's file.

    The original leaks 64 bytes for each tensor that it hands to torch: 27 KB for each load of an adapter on all linear
    layers of a model with 30 layers, which adds up in a server that loads and evicts all day.
    """

    def __init__(self, path: str, framework: str) -> None:
        self._tensors = safetensors.torch.load(Path(path).read_bytes())

    def __enter__(self) -> "Whole":
        return self

    def __exit__(self, *_: object) -> None:
        self._tensors = {}

    def keys(self) -> list[str]:
        """The tensors' names, as in the file."""
        return list(self._tensors)

    def get_tensor(self, name: str) -> torch.Tensor:
        """A tensor with its own memory."""
        return self._tensors[name]
