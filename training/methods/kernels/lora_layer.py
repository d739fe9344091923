"""PEFT's LoRA layer as one autograd function, for training on a CPU.

PEFT's own layer runs eight operators forward, among them two copies of the input in other number formats, which are
kept for the backward pass. Here the adapter is added into the base's product, and only the input and `r` numbers per
row are kept. Values and gradients equal PEFT's (tests/invariant/test_lora_layer.py).
"""

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners import lora
from torch.nn.functional import linear


def use_in(config: LoraConfig) -> LoraConfig:
    """`config`, so that PEFT builds its layers from this class."""
    config._register_custom_module({torch.nn.Linear: Linear})  # PEFT documents this private name
    return config


class Linear(lora.Linear):
    """`x W' + s (x A') B'`, as PEFT computes it under autocast: products in the base's number format."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output. One plain adapter takes the fast path, everything else PEFT's own.

        Args:
            x: `[..., in_features]`.
        """
        names = self.active_adapters
        if args or kwargs or self.disable_adapters or self.merged or len(names) != 1 or not self._plain(names[0]):
            return super().forward(x, *args, **kwargs)
        a, b = self.lora_A[names[0]].weight, self.lora_B[names[0]].weight
        base = self.get_base_layer()
        return _Function.apply(x, base.weight, base.bias, a, b, self.scaling[names[0]])

    def _plain(self, name: str) -> bool:
        return (
            name in self.lora_A
            and name not in self.lora_variant
            and not self.lora_bias[name]
            and isinstance(self.lora_dropout[name], torch.nn.Identity)
        )


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(weight.dtype)
        a, b = a.to(weight.dtype), (b * scaling).to(weight.dtype)
        low = rows @ a.T
        ctx.save_for_backward(rows, low, weight, a, b)
        ctx.scaling, ctx.dtype = scaling, x.dtype
        return linear(rows, weight, bias).addmm_(low, b.T).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, low, weight, a, b = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, weight.shape[0])
        of_low = gradient @ b
        of_x = None
        if ctx.needs_input_grad[0]:
            shape = (*gradients[0].shape[:-1], weight.shape[1])
            of_x = (gradient @ weight).addmm_(of_low, a).view(shape).to(ctx.dtype)
        of_a = (of_low.T @ rows).float()
        of_b = (gradient.T @ low).float().mul_(ctx.scaling)
        return of_x, None, None, of_a, of_b, None
