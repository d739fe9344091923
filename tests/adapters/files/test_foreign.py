"""Adapters shaped like other trainers' output: put right and serving the same product, or refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.base import BaseModel
from adapters.errors import InvalidAdapter
from adapters.files.foreign import adopt
from adapters.files.validate import CONFIG, WEIGHTS, Limits, check
from tests.conftest import MakeAdapter

PREFIX = "base_model.model."
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Rename = Callable[[str], str]


def as_is(key: str) -> str:
    return key


def wrapped(where: str, wrapper: str) -> Rename:
    return lambda key: key.replace(where, f"{where}{wrapper}", 1)


# tool, its names, dtype, what its config has beside PEFT's keys
TOOLS: list[tuple[str, Rename, torch.dtype, dict[str, Any]]] = [
    ("axolotl", as_is, torch.bfloat16, {"fan_in_fan_out": None, "base_model_name_or_path": "HuggingFaceTB/tiny"}),
    (
        "unsloth",
        as_is,
        torch.float16,
        {
            "base_model_name_or_path": "unsloth/tiny-unsloth-bnb-4bit",
            "auto_mapping": {"base_model_class": "LlamaForCausalLM", "unsloth_fixed": True},
            "target_modules": r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj))",
        },
    ),
    (
        "llama-factory",
        as_is,
        torch.float32,
        {
            "base_model_name_or_path": "/data/models/tiny/",
            "loftq_config": {},
            "megatron_config": None,
            "eva_config": None,
        },
    ),
    ("torchtune", lambda key: key.removeprefix(PREFIX), torch.bfloat16, {"base_model_name_or_path": ""}),
    ("JAX export", lambda key: key.removeprefix(PREFIX + "model."), torch.float32, {"base_model_name_or_path": None}),
    ("PEFT state dict", lambda key: key.replace(".weight", ".default.weight"), torch.float32, {}),
    ("FSDP", wrapped("model.layers.0.", "_fsdp_wrapped_module."), torch.bfloat16, {}),
    ("checkpointing", wrapped("model.layers.1.", "_checkpoint_wrapped_module."), torch.bfloat16, {}),
    ("DDP", lambda key: "module." + key, torch.float32, {}),
    ("torch.compile", lambda key: PREFIX + "_orig_mod." + key.removeprefix(PREFIX), torch.float32, {}),
]


@pytest.mark.parametrize(("tool", "rename", "dtype", "config"), TOOLS, ids=[tool for tool, *_ in TOOLS])
def test_an_adapter_of_another_tool_is_taken(
    tool: str,
    rename: Rename,
    dtype: torch.dtype,
    config: dict[str, Any],
    tiny_base: BaseModel,
    make_adapter: MakeAdapter,
) -> None:
    folder = make_adapter(tiny_base, modules=ALL_LINEAR, config=config)
    original = {key: tensor.to(dtype) for key, tensor in load_file(folder / WEIGHTS).items()}
    save_file({rename(key): tensor for key, tensor in original.items()}, folder / WEIGHTS)
    adopt(folder, tiny_base)
    assert check(folder, tiny_base, Limits(max_rank=16)).rank > 0
    adopted = load_file(folder / WEIGHTS)
    assert adopted.keys() == original.keys()
    assert all(torch.equal(adopted[key], tensor) for key, tensor in original.items())


def test_what_is_right_already_is_not_touched(tiny_base: BaseModel, make_adapter: MakeAdapter) -> None:
    folder = make_adapter(tiny_base)
    before = (folder / WEIGHTS).stat().st_mtime_ns
    adopt(folder, tiny_base)
    assert (folder / WEIGHTS).stat().st_mtime_ns == before


def test_fused_layers_are_cut_into_their_parts(tiny_base: BaseModel, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = make_adapter(tiny_base, rank=4, config={"target_modules": ["qkv_proj", "gate_up_proj"]})
    tensors: dict[str, torch.Tensor] = {}
    sizes = {"self_attn.qkv_proj": (64 + 32 + 32, 64), "mlp.gate_up_proj": (128 + 128, 64)}
    for layer in range(2):
        for module, (out_features, in_features) in sizes.items():
            key = f"{PREFIX}model.layers.{layer}.{module}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(4, in_features)
            tensors[f"{key}.lora_B.weight"] = torch.randn(out_features, 4)
    save_file(tensors, folder / WEIGHTS)
    adopt(folder, tiny_base)
    check(folder, tiny_base, Limits(max_rank=16))
    assert json.loads((folder / CONFIG).read_text())["target_modules"] == sorted(ALL_LINEAR[:3] + ALL_LINEAR[4:6])
    parts = load_file(folder / WEIGHTS)
    for module, names in (
        ("self_attn.qkv_proj", ("q_proj", "k_proj", "v_proj")),
        ("mlp.gate_up_proj", ("gate_proj", "up_proj")),
    ):
        key = f"{PREFIX}model.layers.1.{module}"
        fused = tensors[f"{key}.lora_B.weight"] @ tensors[f"{key}.lora_A.weight"]
        places = [f"{PREFIX}model.layers.1.{module.partition('.')[0]}.{name}" for name in names]
        split = torch.cat([parts[f"{place}.lora_B.weight"] @ parts[f"{place}.lora_A.weight"] for place in places])
        assert torch.allclose(split, fused, atol=1e-5)


@pytest.mark.parametrize(
    ("rename", "reason"),
    [
        (lambda key: key.replace("q_proj", "qkv_proj"), "has no linear layer"),
        (lambda key: key.replace("lora_A", "lora_a").replace("lora_B", "lora_b"), "unknown tensor"),
        (lambda key: key.replace(".weight", ""), "unknown tensor"),
        (lambda key: key.replace("self_attn", "attention"), "has no linear layer"),
    ],
    ids=["fused of another size", "MLX", "no weight", "another architecture"],
)
def test_what_cannot_be_put_right_is_refused_by_name(
    rename: Rename, reason: str, tiny_base: BaseModel, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter(tiny_base, modules=("q_proj",))
    save_file({rename(key): tensor for key, tensor in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    adopt(folder, tiny_base)
    with pytest.raises(InvalidAdapter, match=reason):
        check(folder, tiny_base, Limits(max_rank=16))


def test_another_base_is_refused(tiny_base: BaseModel, make_adapter: MakeAdapter) -> None:
    folder = make_adapter(tiny_base, config={"base_model_name_or_path": "unsloth/tiny-2-bnb-4bit"})
    with pytest.raises(InvalidAdapter, match="base_model_name_or_path"):
        check(folder, tiny_base, Limits(max_rank=16))


@pytest.mark.parametrize("key", ["model.embed_tokens.weight", "lm_head.weight", "model.embed_tokens.base_layer.weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_copies_of_the_bases_embeddings_are_left_out(
    key: str, dtype: torch.dtype, tiny_base: BaseModel, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter(tiny_base)
    lora = load_file(folder / WEIGHTS)
    module = "lm_head" if "lm_head" in key and "lm_head" in tiny_base.shapes else "model.embed_tokens"
    own = load_file(next(tiny_base.path.glob("*.safetensors")))[f"{module}.weight"].to(dtype)
    save_file({**lora, PREFIX + key: own}, folder / WEIGHTS)
    adopt(folder, tiny_base)
    assert load_file(folder / WEIGHTS).keys() == lora.keys()
    check(folder, tiny_base, Limits(16))

    for changed in (own + 1, torch.cat([own, own[:2]])):
        save_file({**lora, PREFIX + key: changed}, folder / WEIGHTS)
        adopt(folder, tiny_base)
        with pytest.raises(InvalidAdapter, match="save_embedding_layers=False"):
            check(folder, tiny_base, Limits(16))


def of_another_adapter(key: str) -> str:
    return key.replace(".weight", ".reference.weight")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda key: key.replace(".weight", ".default.weight"), of_another_adapter),
        (as_is, of_another_adapter),
        (as_is, lambda key: key.removeprefix(PREFIX)),
        (as_is, lambda key: "module." + key),
    ],
    ids=["two adapters of a state dict", "an adapter beside its reference", "torchtune's beside PEFT's", "DDP's twice"],
)
def test_two_tensors_for_one_weight_are_refused_with_both(
    first: Rename, second: Rename, tiny_base: BaseModel, make_adapter: MakeAdapter
) -> None:
    """Not one of them served, and the other lost."""
    folder = make_adapter(tiny_base, modules=("q_proj",))
    tensors = load_file(folder / WEIGHTS)
    save_file(
        {first(key): tensor for key, tensor in tensors.items()}
        | {second(key): 2 * tensor for key, tensor in tensors.items()},
        folder / WEIGHTS,
    )
    with pytest.raises(InvalidAdapter, match="holds two adapters") as refused:
        adopt(folder, tiny_base)
    assert any(
        {refused.value.key, refused.value.problem.split()[5].rstrip(":")} == {first(key), second(key)}
        for key in tensors
    )


def test_lora_of_an_embedding_is_called_so(tiny_base: BaseModel, make_adapter: MakeAdapter) -> None:
    key = f"{PREFIX}model.embed_tokens.lora_embedding_A"
    folder = make_adapter(tiny_base, edit=lambda tensors: tensors.update({key: torch.ones(8, 4)}))
    adopt(folder, tiny_base)
    with pytest.raises(InvalidAdapter, match="LoRA of an embedding"):
        check(folder, tiny_base, Limits(max_rank=16))
