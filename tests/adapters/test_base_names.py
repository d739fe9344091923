"""Names that trainers write for a base: those that are surely another model are kept out, no other."""

from pathlib import Path

import pytest

from adapters.base import BaseModel

BASE = BaseModel("SmolLM2-135M-Instruct", Path("/mnt/models/base"), {})
COMMIT = "0f1e2d3c4b5a69788796a5b4c3d2e1f001234567"

SAME = [
    "SmolLM2-135M-Instruct",
    "smollm2-135m-instruct",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    "HuggingFaceTB/SmolLM2-135M-Instruct@main",
    f"/root/.cache/huggingface/hub/models--HuggingFaceTB--SmolLM2-135M-Instruct/snapshots/{COMMIT}",
    f"/root/.cache/huggingface/hub/models--HuggingFaceTB--SmolLM2-135M-Instruct/snapshots/{COMMIT}/",
    "models--HuggingFaceTB--SmolLM2-135M-Instruct",
    rf"C:\Users\me\.cache\huggingface\hub\models--HuggingFaceTB--SmolLM2-135M-Instruct\snapshots\{COMMIT}",
    "/root/.cache/modelscope/hub/models--HuggingFaceTB--SmolLM2-135M-Instruct/snapshots/master",
    f"/data/SmolLM2-135M-Instruct/{COMMIT}",
    "/new-model/smol/SmolLM2-135M-Instruct//",
    "../SmolLM2-135M-Instruct",
    "./SmolLM2-135M-Instruct/.",
    r"C:\models\SmolLM2-135M-Instruct",
    r"\\server\share\SmolLM2-135M-Instruct" + "\\",
    r"C:\models/SmolLM2-135M-Instruct",
    " SmolLM2-135M-Instruct\n",
    "/mnt/models/base",
    "/mnt/models/base/",
    *(
        f"someone/SmolLM2-135M-Instruct{twin}"
        for twin in (
            *("-bnb-4bit", "-bnb-8bit", "-unsloth-bnb-4bit", "-4bit", "-8bit", "-mlx-4Bit", "_4bit", "-Int8", "-NF4"),
            *("-GPTQ", "-GPTQ-Int4", "-GPTQ-4bit-128g".replace("-128g", "-g128"), "-FP8", "-FP8-Dynamic", "-HQQ"),
            *("-GGUF", ".Q4_K_M.gguf", "-int4-AutoRound", "-quantized.w4a16", "-bf16", "-fp16"),
        )
    ),
]
OTHER = [
    "HuggingFaceTB/SmolLM2-135M",
    "unsloth/SmolLM2-135M-bnb-4bit",
    "SmolLM2-360M-Instruct",
    "SmolLM2-135M-Instruct-16k",
    "SmolLM2-135M-Instruct-QAT-int4",
    "SmolLM2-135M-Instruct-AWQ",  # its norms are scaled: an adapter trained there expects other inputs
    "SmolLM2-135M-Instruct-AWQ-4bit",
    "SmolLM2-135M-Instruct-quantized.w8a8",  # SmoothQuant, the same
    "/SmolLM2-135M-Instruct/checkpoint-500",
    f"/models--HuggingFaceTB--SmolLM2-135M-Instruct/snapshots/{COMMIT}/merged",
    f"/root/.cache/huggingface/hub/models--HuggingFaceTB--SmolLM2-135M/snapshots/{COMMIT}",
    "SmolLM2-135M-Instruct/../Llama-2-7b-chat-hf",
    "SmolLM2-135M-Instruct\0",
    "SmolLM2\u2028-135M-Instruct",
    COMMIT,
    "-bnb-4bit",
    "/",
    "\\",
    "SmolLM2-135M-Instruct" + "-hf" * 100_000,
]


@pytest.mark.parametrize("name", SAME)
def test_the_same_weights(name: str) -> None:
    assert BASE.is_named(name)


@pytest.mark.parametrize("name", OTHER, ids=range(len(OTHER)))
def test_other_weights(name: str) -> None:
    assert not BASE.is_named(name)


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("Qwen2.5-7B-Instruct", "/root/.cache/modelscope/hub/models/Qwen/Qwen2___5-7B-Instruct"),
        ("meta-llama/Llama-3.1-8B-Instruct", "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit"),
        ("meta-llama/Llama-2-7b-chat-hf", "unsloth/llama-2-7b-chat-bnb-4bit"),
        ("Qwen3-8B-FP8", "Qwen/Qwen3-8B"),
        ("Qwen3-8B-AWQ", "Qwen/Qwen3-8B-AWQ"),
    ],
)
def test_names_of_well_known_models(base: str, name: str) -> None:
    assert BaseModel(base, Path("/x"), {}).is_named(name)


def test_a_base_in_the_hub_s_cache_is_not_called_by_its_commit(tiny: Path, tmp_path: Path) -> None:
    snapshots = tmp_path / "models--HuggingFaceTB--SmolLM2-135M-Instruct" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / COMMIT).symlink_to(tiny)
    assert BaseModel.read(snapshots / COMMIT).name == "SmolLM2-135M-Instruct"
