"""Hostile and broken adapters: each refused before the engine sees it, by the name of what is wrong."""

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.base import BaseModel
from adapters.errors import InvalidAdapter
from adapters.files.validate import CONFIG, WEIGHTS, Limits, check
from adapters.manifest import Manifest
from tests.conftest import MakeAdapter
from tests.families import FAMILIES, save

LIMITS = Limits(max_rank=16)
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
KEY_B = KEY.replace("lora_A", "lora_B")


def test_a_good_adapter_passes(make_adapter: MakeAdapter, tiny_base: BaseModel) -> None:
    info = check(make_adapter(tiny_base, rank=4), tiny_base, LIMITS)
    assert info.rank == 4
    assert info.manifest == Manifest()


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda tensors: tensors.pop(key)


def _with(key: str, tensor: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda tensors: tensors.update({key: tensor})


def _poison(value: float) -> Callable[[dict[str, Any]], Any]:
    return lambda tensors: tensors[KEY].view(-1).__setitem__(5, value)


def _drop_layer(tensors: dict[str, Any]) -> None:
    for key in [key for key in tensors if ".layers.1." in key]:
        del tensors[key]


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        (_without(KEY), KEY),
        (_without(KEY_B), KEY_B),
        (_poison(float("nan")), KEY),
        (_poison(float("inf")), KEY),
        (lambda tensors: tensors.update({KEY: tensors[KEY].bfloat16().fill_(float("nan"))}), KEY),
        (lambda tensors: tensors.update({KEY: tensors[KEY].half().fill_(float("-inf"))}), KEY),
        (_with(KEY, torch.zeros(4, 32)), KEY),
        (_with(KEY, torch.zeros(4, 4, 64)), KEY),
        (_with(KEY, torch.zeros(32, 64)), KEY),
        (_with(KEY, torch.zeros(4, 64, dtype=torch.int8)), KEY),
        (_with(KEY, torch.zeros(2, 64)), KEY_B),
        (_with(KEY.replace("layers.0", "layers.7"), torch.zeros(4, 64)), KEY.replace("layers.0", "layers.7")),
        (_with("base_model.model.lm_head.lora_A.weight", torch.zeros(4, 64)), "lm_head"),
        (_with("model.embed_tokens.weight", torch.zeros(4, 64)), "model.embed_tokens.weight"),
        (_with(KEY.replace("weight", "magnitude"), torch.zeros(4)), "magnitude"),
        (_drop_layer, "layers.1"),
        (lambda tensors: tensors.clear(), WEIGHTS),
    ],
)
def test_wrong_tensors_are_named(
    edit: Callable[[dict[str, Any]], Any], key: str, make_adapter: MakeAdapter, tiny_base: BaseModel
) -> None:
    with pytest.raises(InvalidAdapter) as refused:
        check(make_adapter(tiny_base, rank=4, edit=edit), tiny_base, LIMITS)
    assert key in refused.value.key


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"r": 64}, "r"),
        ({"r": 0}, "r"),
        ({"r": "4; rm -rf /"}, "r"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"rank_pattern": {"q_proj": 128}}, "q_proj"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"base_model_name_or_path": "meta-llama/Llama-3.2-1B"}, "base_model_name_or_path"),
    ],
)
def test_wrong_configs_are_named(
    config: dict[str, Any], key: str, make_adapter: MakeAdapter, tiny_base: BaseModel
) -> None:
    with pytest.raises(InvalidAdapter) as refused:
        check(make_adapter(tiny_base, rank=4, config=config), tiny_base, LIMITS)
    assert refused.value.key.startswith(CONFIG)
    assert key in refused.value.key


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"r": ' + b"[" * 100_000, b"x" * 1_100_000]
)
def test_hostile_json_is_refused(content: bytes, make_adapter: MakeAdapter, tiny_base: BaseModel) -> None:
    for name in (CONFIG, "manifest.json"):
        folder = make_adapter(tiny_base, rank=4)
        (folder / name).write_bytes(content)
        with pytest.raises(InvalidAdapter, match=name):
            check(folder, tiny_base, LIMITS)


def test_adapters_beside_experts_pass_and_those_on_experts_are_refused(
    make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    """The engine would leave them out, and answer with other probabilities than PEFT."""
    base = BaseModel.read(save(FAMILIES["moe"], tmp_path))
    check(make_adapter(base, modules=("q_proj", "o_proj")), base, LIMITS)
    with pytest.raises(InvalidAdapter, match=r"experts\.0\.down_proj.*is of an expert"):
        check(make_adapter(base, modules=("q_proj", "down_proj")), base, LIMITS)


def test_pickles_are_refused_with_a_way_out(make_adapter: MakeAdapter, tiny_base: BaseModel) -> None:
    folder = make_adapter(tiny_base)
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(InvalidAdapter, match="safe_serialization=True"):
        check(folder, tiny_base, LIMITS)


def test_truncated_and_oversized_files_are_refused(make_adapter: MakeAdapter, tiny_base: BaseModel) -> None:
    folder = make_adapter(tiny_base)
    content = (folder / WEIGHTS).read_bytes()
    with pytest.raises(InvalidAdapter, match="at most 10 are allowed"):
        check(folder, tiny_base, Limits(max_rank=16, max_bytes=10))
    (folder / WEIGHTS).write_bytes(content[:-100])
    with pytest.raises(InvalidAdapter, match="damaged"):
        check(folder, tiny_base, LIMITS)


def test_a_header_that_lies_about_sizes_is_refused(make_adapter: MakeAdapter, tiny_base: BaseModel) -> None:
    folder = make_adapter(tiny_base)
    header = json.dumps({KEY: {"dtype": "F32", "shape": [2**40, 64], "data_offsets": [0, 16]}}).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(InvalidAdapter, match="damaged"):
        check(folder, tiny_base, LIMITS)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_or_harmless(
    data: st.DataObject, make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path
) -> None:
    """Flip bytes anywhere in the header: the answer is InvalidAdapter or a valid adapter, never another error."""
    if not (tmp_path / WEIGHTS).exists():
        make_adapter(tiny_base).rename(tmp_path / "good")
        (tmp_path / CONFIG).write_bytes((tmp_path / "good" / CONFIG).read_bytes())
    content = bytearray((tmp_path / "good" / WEIGHTS).read_bytes())
    header_end = 8 + struct.unpack("<Q", content[:8])[0]
    for position in data.draw(st.lists(st.integers(0, header_end - 1), min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    (tmp_path / WEIGHTS).write_bytes(content)
    with contextlib.suppress(InvalidAdapter):
        check(tmp_path, tiny_base, LIMITS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.integers(-(2**65), 2**65) | st.sampled_from([0, 1, 4, 16, 64, 1024])
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F64", "I8", "F8_E4M3", "X"]) | JSON,
        "shape": st.lists(NUMBERS, max_size=4) | JSON,
        "data_offsets": st.lists(NUMBERS, max_size=3) | JSON,
    },
)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.dictionaries(st.sampled_from([KEY, KEY_B, "__metadata__"]) | st.text(), ENTRIES | JSON, max_size=4),
    size=st.integers(0, 4096),
    length=st.none() | st.integers(0, 2**64 - 1),
)
def test_an_invented_header_is_refused(
    header: dict[str, Any], size: int, length: int | None, tiny_base: BaseModel, tmp_path: Path
) -> None:
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": tiny_base.name}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    text = json.dumps(header).encode()
    (tmp_path / WEIGHTS).write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(size))
    with pytest.raises(InvalidAdapter):
        check(tmp_path, tiny_base, LIMITS)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    change=st.dictionaries(
        st.sampled_from(["r", "lora_alpha", "rank_pattern", "alpha_pattern", "bias", "modules_to_save", "use_dora"])
        | st.text(max_size=8),
        JSON,
        max_size=4,
    ),
    manifest=st.none() | JSON,
)
def test_an_invented_config_is_refused_or_harmless(
    change: dict[str, Any],
    manifest: Any,
    make_adapter: MakeAdapter,
    tiny_base: BaseModel,
    tmp_path: Path,
) -> None:
    if not (tmp_path / "good").exists():
        make_adapter(tiny_base, rank=4).rename(tmp_path / "good")
        (tmp_path / WEIGHTS).symlink_to(tmp_path / "good" / WEIGHTS)
    good = json.loads((tmp_path / "good" / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**good, **change}))
    (tmp_path / "manifest.json").unlink(missing_ok=True)
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with contextlib.suppress(InvalidAdapter):
        assert check(tmp_path, tiny_base, LIMITS).rank == 4
