"""Our LoRA layer is PEFT's, in value and gradient, with and without autocast; what it does not do itself, PEFT does."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from training.methods.kernels import lora_layer

WIDTHS = (48, 40)


def outputs(*, ours: bool, autocast: bool, **config: Any) -> list[torch.Tensor]:
    """The value, and the gradients of the input and of both of the adapter's matrices."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if autocast else torch.float32
    base = torch.nn.Sequential(torch.nn.Linear(*WIDTHS, dtype=dtype))
    wanted: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": ["0"], "init_lora_weights": False, **config}
    lora = LoraConfig(**wanted)
    model: Any = get_peft_model(base, lora_layer.use_in(lora) if ours else lora).train()  # pyright: ignore[reportArgumentType]
    assert isinstance(model.base_model.model[0], lora_layer.Linear) == ours
    x = torch.randn(3, 5, WIDTHS[0], dtype=dtype, requires_grad=True)
    torch.manual_seed(1)  # for dropout
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = model(x)
    y.float().square().sum().backward()
    trained = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    return [y.detach(), x.grad, *trained]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"lora_dropout": 0.5}, {"use_dora": True}])
def test_value_and_gradients_are_pefts(*, autocast: bool, config: dict[str, Any]) -> None:
    theirs = outputs(ours=False, autocast=autocast, **config)
    for one, other in zip(outputs(ours=True, autocast=autocast, **config), theirs, strict=True):
        assert one.dtype == other.dtype
        error = (one.float() - other.float()).norm() / other.float().norm()
        assert error < (0.01 if autocast else 1e-5)


def test_a_disabled_adapter_leaves_the_base() -> None:
    base = torch.nn.Sequential(torch.nn.Linear(*WIDTHS))
    x = torch.randn(2, WIDTHS[0])
    alone = base(x)
    lora = LoraConfig(r=4, target_modules=["0"], init_lora_weights=False)
    model = get_peft_model(base, lora_layer.use_in(lora))  # pyright: ignore[reportArgumentType]
    assert not torch.equal(model(x), alone)
    with model.disable_adapter():
        assert torch.equal(model(x), alone)
