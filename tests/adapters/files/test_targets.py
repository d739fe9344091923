"""Layers, ranks and scales as a config means them: what PEFT makes of it, what the engine reads, and what we say."""

import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from vllm.lora.peft_helper import PEFTHelper

from adapters.base import BaseModel
from adapters.errors import InvalidAdapter
from adapters.files import config as config_file
from adapters.files.foreign import adopt
from adapters.files.targets import Targets
from adapters.files.validate import CONFIG, WEIGHTS, Limits, check
from tests.conftest import MakeAdapter

LIMITS = Limits(max_rank=16)
LEAVES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FIRST = "model.layers.0.self_attn.q_proj"
UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:q_proj|v_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:q_proj|v_proj)))"
)

# PEFT's own arguments -> how many of the 14 linear layers of the tiny base get an adapter.
MEANT: dict[str, tuple[dict[str, Any], int]] = {
    "leaf names": ({"target_modules": ["q_proj", "v_proj"]}, 4),
    "all leaves": ({"target_modules": LEAVES}, 14),
    "leaves of other architectures too": ({"target_modules": ["q_proj", "c_attn", "query_key_value"]}, 2),
    "full names": ({"target_modules": [FIRST, "model.layers.1.mlp.up_proj"]}, 2),
    "ends of names": ({"target_modules": ["self_attn.q_proj", "1.mlp.down_proj", "layers.0.mlp.up_proj"]}, 4),
    "all-linear": ({"target_modules": "all-linear"}, 14),
    "a regular expression": ({"target_modules": r".*\.1\.(self_attn|mlp)\.(q|up)_proj"}, 2),
    "a regular expression with flags": ({"target_modules": r"(?i).*Q_PROJ"}, 2),
    "Unsloth's": ({"target_modules": UNSLOTH}, 4),
    "one layer": ({"target_modules": LEAVES, "layers_to_transform": 1}, 7),
    "a list of layers": ({"target_modules": ["q_proj"], "layers_to_transform": [0]}, 1),
    "layers that the base has not": ({"target_modules": ["q_proj"], "layers_to_transform": [1, 7]}, 1),
    "no layers chosen": ({"target_modules": ["q_proj"], "layers_to_transform": []}, 2),
    "layers by pattern": (
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
        1,
    ),
    "layers by patterns": (
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h", "layers"]},
        1,
    ),
    "a full name beside layers": ({"target_modules": [FIRST, "up_proj"], "layers_to_transform": [1]}, 2),
    "excluded leaves": ({"target_modules": LEAVES, "exclude_modules": ["down_proj", "layers.0.mlp.up_proj"]}, 11),
    "excluded by pattern": ({"target_modules": "all-linear", "exclude_modules": r".*\.0\..*"}, 7),
    "ranks by leaf": ({"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}}, 4),
    "ranks and alphas": (
        {
            "target_modules": ["q_proj", "v_proj", "up_proj"],
            "rank_pattern": {"layers.0.self_attn.q_proj": 2, r".*\.1\..*_proj": 8, "q_proj": 3},
            "alpha_pattern": {"^model.layers.1.mlp.up_proj": 5, "v_proj|up_proj": 7},
        },
        6,
    ),
    "half a leaf is none": ({"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"proj": 2, "_proj": 3}}, 4),
    "the first of two patterns": (
        {"target_modules": ["q_proj"], "rank_pattern": {"self_attn.q_proj": 2, "q_proj": 3}},
        2,
    ),
    "rsLoRA": ({"target_modules": ["q_proj"], "use_rslora": True, "rank_pattern": {f"{FIRST}": 9}}, 2),
}


def saved_by_peft(tiny: Path, folder: Path, arguments: dict[str, Any]) -> dict[str, float]:
    """Have PEFT write an adapter of random weights; return the scale of each of its layers."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny)
    settings = LoraConfig(
        **{"r": 4, "lora_alpha": 6, "init_lora_weights": False, "task_type": "CAUSAL_LM", **arguments}
    )
    tuned = get_peft_model(model, settings)
    tuned.save_pretrained(folder)
    content = json.loads((folder / CONFIG).read_text())
    # PEFT writes keys sorted, so that another pattern may come first when it is loaded again; keep what was trained.
    content |= {key: dict(arguments.get(key) or {}) for key in ("rank_pattern", "alpha_pattern")}
    (folder / CONFIG).write_text(json.dumps(content | {"base_model_name_or_path": "tiny"}))
    layers = {name.removeprefix("base_model.model."): module for name, module in tuned.named_modules()}
    return {name: layer.scaling["default"] for name, layer in layers.items() if hasattr(layer, "lora_A")}


@pytest.mark.parametrize("what", MEANT)
def test_peft_the_engine_and_we_agree(what: str, tiny: Path, tiny_base: BaseModel, tmp_path: Path) -> None:
    arguments, count = MEANT[what]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scales = saved_by_peft(tiny, tmp_path, arguments)
    assert len(scales) == count

    adopt(tmp_path, tiny_base)
    check(tmp_path, tiny_base, LIMITS)

    # As written by hand: not the list of full names that PEFT makes of "all-linear".
    content = json.loads((tmp_path / CONFIG).read_text()) | arguments
    (tmp_path / CONFIG).write_text(json.dumps(content))
    check(tmp_path, tiny_base, LIMITS)
    targets = Targets(config_file.read(tmp_path / CONFIG, tiny_base, 16))
    assert {module: targets.scale(module) for module in targets.among(tiny_base.shapes)} == pytest.approx(scales)
    engine = PEFTHelper.from_local_dir(str(tmp_path), max_position_embeddings=None)
    assert {module: engine.get_rank_and_scaling(module) for module in scales} == {
        module: (targets.rank(module)[0], pytest.approx(scale)) for module, scale in scales.items()
    }


def _without(part: str) -> Any:
    return lambda tensors: [tensors.pop(key) for key in list(tensors) if part in key]


def _rank(part: str, rank: int) -> Any:
    def change(tensors: dict[str, Any]) -> None:
        for key in [key for key in tensors if part in key]:
            cut = tensors[key][:rank] if "lora_A" in key else tensors[key][:, :rank]
            tensors[key] = cut.contiguous()

    return change


def _nothing(tensors: dict[str, Any]) -> None:
    """Leave the tensors as they are."""


# Config keys changed, tensors changed, what the message holds. The adapter has rank 4 on q_proj and v_proj of 2 layers.
WRONG: dict[str, tuple[dict[str, Any], Any, list[str]]] = {
    "r is not the tensors'": ({"r": 8}, _nothing, ["has rank 4", "r in adapter_config.json is 8"]),
    "one layer of another rank": ({}, _rank("1.self_attn.v_proj", 2), ["1.self_attn.v_proj", "has rank 2", "is 4"]),
    "rank_pattern is not the tensors'": (
        {"rank_pattern": {"v_proj": 2}},
        _nothing,
        ["v_proj", "has rank 4", "rank_pattern.v_proj in adapter_config.json is 2"],
    ),
    "rank_pattern of what is there, another key": (
        {"rank_pattern": {"attn.v_proj": 2}},
        _rank("v_proj", 2),
        ["v_proj", "has rank 2", "r in adapter_config.json is 4"],
    ),
    "a leaf too many in the config": (
        {"target_modules": ["q_proj", "v_proj", "up_proj"]},
        _nothing,
        ["mlp.up_proj", "is missing", "means 6 layers", "tensors for 4", "['q_proj', 'up_proj', 'v_proj']"],
    ),
    "a leaf too few": ({"target_modules": ["q_proj"]}, _nothing, ["v_proj", "does not mean", "['q_proj']"]),
    "another leaf": ({"target_modules": ["k_proj", "v_proj"]}, _nothing, ["q_proj", "['k_proj', 'v_proj']"]),
    "no layer of the base": (
        {"target_modules": ["c_attn"]},
        _nothing,
        ["target_modules", "['c_attn']", "no layer of tiny"],
    ),
    "an empty list": ({"target_modules": []}, _nothing, ["target_modules", "no layer"]),
    "an expression for another": ({"target_modules": "q_proj"}, _nothing, ["target_modules", "'q_proj'", "no layer"]),
    "an expression for some": ({"target_modules": r".*\.0\..*[qv]_proj"}, _nothing, ["layers.1", "does not mean"]),
    "all-linear of some": ({"target_modules": "all-linear"}, _nothing, ["is missing", "means 14", "for 4"]),
    "a layer too few in the tensors": ({}, _without("layers.1."), ["layers.1", "is missing", "means 4", "for 2"]),
    "one module less": ({}, _without("1.self_attn.v_proj"), ["1.self_attn.v_proj", "is missing"]),
    "layers_to_transform of fewer": (
        {"layers_to_transform": [0]},
        _nothing,
        ["layers.1", "layers_to_transform is [0]"],
    ),
    "layers_to_transform of others": (
        {"layers_to_transform": [0]},
        _without("layers.0."),
        ["layers.1", "layers_to_transform is [0]"],
    ),
    "layers_to_transform of more": (
        {"layers_to_transform": [0, 1]},
        _without("layers.1."),
        ["layers.1", "is missing", "layers_to_transform is [0, 1]"],
    ),
    "layers_pattern of no layer": (
        {"layers_to_transform": [0, 1], "layers_pattern": "blocks"},
        _nothing,
        ["target_modules", "no layer"],
    ),
    "layers_pattern alone": ({"layers_pattern": "layers"}, _nothing, ["layers_pattern", "layers_to_transform"]),
    "layers beside an expression": (
        {"target_modules": ".*[qv]_proj", "layers_to_transform": [0]},
        _nothing,
        ["layers_to_transform", "is [0]", ".*[qv]_proj"],
    ),
    "excluded, and there": ({"exclude_modules": ["v_proj"]}, _nothing, ["v_proj", "exclude_modules is ['v_proj']"]),
    "all excluded": ({"exclude_modules": ".*"}, _nothing, ["target_modules", "no layer"]),
    "the head, tied": ({"target_modules": ["q_proj", "v_proj", "lm_head"]}, _nothing, ["lm_head", "is missing"]),
    "the embeddings": ({"target_modules": ["q_proj", "v_proj", "embed_tokens"]}, _nothing, ["embed_tokens"]),
    "no target_modules": ({"target_modules": None}, _nothing, ["adapter_config.json.target_modules", "required"]),
    "target_modules of numbers": ({"target_modules": [1]}, _nothing, ["adapter_config.json.target_modules"]),
    "an open bracket": ({"target_modules": "(q_proj"}, _nothing, ["target_modules", "no regular expression"]),
    "an open bracket in a rank": ({"rank_pattern": {"(q": 4}}, _nothing, ["rank_pattern.(q", "no regular expression"]),
    "an open bracket in an alpha": ({"alpha_pattern": {"x[": 4}}, _nothing, ["alpha_pattern.x[", "no regular"]),
    "what engines read differently": (
        {"alpha_pattern": {"(q_prj){e<=1}": 4}},
        _nothing,
        ["alpha_pattern", "differently"],
    ),
    "alpha as text": ({"lora_alpha": "8"}, _nothing, ["lora_alpha", '"8"']),
    "r as text": ({"r": "4"}, _nothing, ["adapter_config.json.r", '"4"']),
    "r as a boolean": ({"r": True}, _nothing, ["adapter_config.json.r", "true"]),
    "use_rslora as text": ({"use_rslora": "false"}, _nothing, ["use_rslora", '"false"']),
    "a huge alpha": ({"lora_alpha": 1e300}, _nothing, ["lora_alpha", "1e+300", "65504"]),
    "a huge whole alpha": ({"lora_alpha": 10**400}, _nothing, ["lora_alpha"]),
    "a huge alpha of one layer": ({"alpha_pattern": {"v_proj": -1e300}}, _nothing, ["alpha_pattern.v_proj", "65504"]),
    "a huge r": ({"r": 10**4000}, _nothing, ["adapter_config.json.r"]),
    "a feature of tomorrow's PEFT, known": ({"use_bdlora": {"nblocks": 2}}, _nothing, ["use_bdlora", "nblocks"]),
    "a start that changes the base": ({"init_lora_weights": "pissa_niter_4"}, _nothing, ["init_lora_weights", "pissa"]),
    "an unknown start": ({"init_lora_weights": "tomorrow"}, _nothing, ["init_lora_weights", "tomorrow"]),
    "trained tokens": ({"trainable_token_indices": [1, 2]}, _nothing, ["trainable_token_indices"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_disagrees_is_refused_with_both(what: str, tiny_base: BaseModel, make_adapter: MakeAdapter) -> None:
    change, edit, named = WRONG[what]
    folder = make_adapter(tiny_base, rank=4, modules=("q_proj", "v_proj"), config=change, edit=edit)
    adopt(folder, tiny_base)
    with pytest.raises(InvalidAdapter) as refused:
        check(folder, tiny_base, LIMITS)
    for part in named:
        assert part in str(refused.value)


@pytest.mark.parametrize("key", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"])
def test_a_pattern_that_takes_for_ever_is_refused(key: str, tiny_base: BaseModel, make_adapter: MakeAdapter) -> None:
    pattern = r"(?:(.+?)\1?)+[A-Z]"
    folder = make_adapter(tiny_base, rank=4, config={key: {pattern: 4} if key.endswith("pattern") else pattern})
    began = time.monotonic()
    with pytest.raises(InvalidAdapter, match=key) as refused:
        check(folder, tiny_base, LIMITS)
    assert "takes more than 1 s" in str(refused.value)
    assert time.monotonic() - began < 20


def test_nulls_are_what_is_left_out(tiny_base: BaseModel, make_adapter: MakeAdapter) -> None:
    absent = dict.fromkeys(
        (
            *("bias", "use_rslora", "rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern"),
            *("exclude_modules", "init_lora_weights", "modules_to_save", "base_model_name_or_path", "use_dora"),
            *("revision", "eva_config", "use_bdlora", "trainable_token_indices", "task_type"),
        )
    )
    folder = make_adapter(tiny_base, rank=4, config=absent)
    adopt(folder, tiny_base)
    assert check(folder, tiny_base, LIMITS).rank == 4
    engine = PEFTHelper.from_local_dir(str(folder), max_position_embeddings=None)
    assert engine.get_rank_and_scaling(FIRST) == (4, 2.0)
    assert engine.bias == "none"


def test_fused_layers_keep_their_ranks_and_scales(tiny_base: BaseModel, make_adapter: MakeAdapter) -> None:
    folder = make_adapter(
        tiny_base,
        rank=4,
        config={
            "target_modules": r".*\.(qkv_proj|o_proj)",
            "rank_pattern": {"0.self_attn.qkv_proj": 2},
            "alpha_pattern": {"qkv_proj": 6},
            "use_rslora": True,
        },
    )
    tensors: dict[str, torch.Tensor] = {}
    for layer, rank in ((0, 2), (1, 4)):
        for module, rows, r in (("qkv_proj", 128, rank), ("o_proj", 64, 4)):
            key = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors |= {f"{key}.lora_A.weight": torch.ones(r, 64), f"{key}.lora_B.weight": torch.ones(rows, r)}
    save_file(tensors, folder / WEIGHTS)
    adopt(folder, tiny_base)
    check(folder, tiny_base, LIMITS)
    engine = PEFTHelper.from_local_dir(str(folder), max_position_embeddings=None)
    assert len(load_file(folder / WEIGHTS)) == 16
    assert engine.get_rank_and_scaling(FIRST.replace("q_proj", "k_proj")) == (2, 6 / math.sqrt(2))
    assert engine.get_rank_and_scaling("model.layers.1.self_attn.v_proj") == (4, 6 / 2)
    assert engine.get_rank_and_scaling("model.layers.1.self_attn.o_proj") == (4, 8 / 2)
