"""A hostile or broken adapter is refused by name before the engine sees it, and a normal request still answers."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from adapters.base import BaseModel
from adapters.files.validate import CONFIG, WEIGHTS
from tests.conftest import MakeAdapter
from tests.inprocess import InProcess

NAME = "ft:SmolLM2-135M-Instruct:test:hostile:1"
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")

Edit = Callable[[dict[str, Any]], Any]


def tensor(key: str, *shape: int, dtype: torch.dtype = torch.float32, value: float = 0) -> Edit:
    return lambda tensors: tensors.update({key: torch.full(shape, value, dtype=dtype)})


def without(part: str) -> Edit:
    def drop(tensors: dict[str, Any]) -> None:
        for key in [key for key in tensors if part in key]:
            del tensors[key]

    return drop


# What is wrong -> change of the tensors, change of the config, and what the answer names.
TENSORS: dict[str, tuple[Edit, str]] = {
    "rank over the limit": (tensor(A, 32, 576), A),
    "rank 0": (tensor(A, 0, 576), A),
    "another hidden size": (tensor(A, 2, 768), A),
    "another output size": (tensor(B, 512, 2), B),
    "more layers": (tensor(A.replace("layers.0", "layers.30"), 2, 576), "layers.30"),
    "fewer layers": (without("layers.29."), "layers.29"),
    "no A": (without(A), A),
    "no B": (without(B), B),
    "A and B of different rank": (tensor(A, 1, 576), B),
    "NaN": (tensor(A, 2, 576, value=float("nan")), A),
    "Inf": (tensor(B, 576, 2, value=float("inf")), B),
    "NaN in bf16": (tensor(A, 2, 576, dtype=torch.bfloat16, value=float("nan")), A),
    "int8": (tensor(A, 2, 576, dtype=torch.int8), A),
    "float64": (tensor(A, 2, 576, dtype=torch.float64), A),
    "three dimensions": (tensor(A, 2, 2, 288), A),
    "unknown module": (tensor(A.replace("q_proj", "z_proj"), 2, 576), "z_proj"),
    "lm_head": (tensor("base_model.model.lm_head.lora_A.weight", 2, 576), "lm_head"),
    "embeddings": (tensor("base_model.model.model.embed_tokens.lora_embedding_A", 2, 576), "embed_tokens"),
    "DoRA's magnitudes": (tensor(A.replace("lora_A.weight", "lora_magnitude_vector"), 576), "lora_magnitude_vector"),
    "a whole saved module": (tensor("base_model.model.lm_head.weight", 2, 576), "lm_head.weight"),
    "a bias": (tensor(A.replace("lora_A.weight", "bias"), 576), "bias"),
    "a path for a name": (tensor("../../../etc/passwd", 2, 576), "etc/passwd"),
    "no tensors": (lambda tensors: tensors.clear(), WEIGHTS),
}
CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "r over the limit": ({"r": 64}, "r"),
    "r is no number": ({"r": "__import__('os').system('id')"}, "r"),
    "negative r": ({"r": -1}, "r"),
    "alpha is NaN": ({"lora_alpha": float("nan")}, "lora_alpha"),
    "use_dora": ({"use_dora": True}, "use_dora"),
    "bias": ({"bias": "all"}, "bias"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "another base": ({"base_model_name_or_path": "meta-llama/Llama-3.2-1B"}, "base_model_name_or_path"),
    "another method": ({"peft_type": "IA3"}, "peft_type"),
    "rank pattern over the limit": ({"rank_pattern": {"q_proj": 512}}, "rank_pattern"),
    "alpha pattern of infinity": ({"alpha_pattern": {"q_proj": float("inf")}}, "alpha_pattern"),
}


def _lying_header(folder: Path) -> None:
    header = json.dumps({A: {"dtype": "F32", "shape": [2**40, 576], "data_offsets": [0, 16]}}).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))


def _endless_header(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**63) + b"{}")


def _overlapping(folder: Path) -> None:
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    header = json.dumps({A: entry, B: entry}).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))


def _pickled(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps(os.getcwd))

    return write


def _linked(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("/etc/passwd")


# What is wrong -> change of the folder, and what the answer names.
FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda folder: (folder / CONFIG).unlink(), CONFIG),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS),
    "broken JSON": (lambda folder: (folder / CONFIG).write_text('{"r": 8,'), CONFIG),
    "deep JSON": (lambda folder: (folder / CONFIG).write_text('{"r": ' + "[" * 100_000), CONFIG),
    "JSON of the wrong kind": (lambda folder: (folder / CONFIG).write_text("[1, 2]"), CONFIG),
    "a config of megabytes": (lambda folder: (folder / CONFIG).write_bytes(b" " * 2_000_000), CONFIG),
    "broken manifest": (
        lambda folder: (folder / "manifest.json").write_text('{"evil": 1, "job_id": "j"}'),
        "manifest.json.evil",
    ),
    "truncated": (lambda folder: os.truncate(folder / WEIGHTS, 5000), WEIGHTS),
    "empty": (lambda folder: os.truncate(folder / WEIGHTS, 0), WEIGHTS),
    "a header that lies about sizes": (_lying_header, WEIGHTS),
    "a header without end": (_endless_header, WEIGHTS),
    "tensors that overlap": (_overlapping, WEIGHTS),
    "a pickle as .bin": (_pickled("adapter_model.bin"), "adapter_model.bin"),
    "a pickle as .pt": (_pickled("adapter_model.pt"), "adapter_model.pt"),
    "a link": (_linked, WEIGHTS),
    "a sparse file over the limit": (lambda folder: os.truncate(folder / WEIGHTS, 2**36), WEIGHTS),
}


def refused(served: InProcess, client: openai.OpenAI, folder: Path, named: str) -> None:
    answer = served.register(NAME, folder)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == "invalid_adapter"
    assert named in error["param"]
    assert named in error["message"]
    assert "Traceback" not in error["message"]
    still_answers(client)


def still_answers(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="SmolLM2-135M-Instruct", messages=[{"role": "user", "content": "Hi"}], max_tokens=1
    )
    assert completion.choices[0].finish_reason == "length"


@pytest.fixture
def make(smollm2_base: BaseModel, make_adapter: MakeAdapter) -> Callable[..., Path]:
    return lambda **change: make_adapter(smollm2_base, rank=2, modules=("q_proj",), **change)


@pytest.mark.parametrize("what", TENSORS)
def test_tensors(what: str, served: InProcess, client: openai.OpenAI, make: Callable[..., Path]) -> None:
    edit, named = TENSORS[what]
    refused(served, client, make(edit=edit), named)


@pytest.mark.parametrize("what", CONFIGS)
def test_config(what: str, served: InProcess, client: openai.OpenAI, make: Callable[..., Path]) -> None:
    config, named = CONFIGS[what]
    refused(served, client, make(config=config), named)


@pytest.mark.parametrize("what", FILES)
def test_files(what: str, served: InProcess, client: openai.OpenAI, make: Callable[..., Path]) -> None:
    edit, named = FILES[what]
    folder = make()
    edit(folder)
    refused(served, client, folder, named)


def _bomb() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(WEIGHTS, bytes(200 * 1024**2))
    return archive.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter.zip", _bomb),
        ("adapter.tar.gz", lambda: b"\x1f\x8b"),
        ("../adapter_config.json", lambda: b"{}"),
        ("../../../../tmp/adapter_model.safetensors", lambda: b"{}"),
        ("/etc/cron.d/adapter_config.json", lambda: b"{}"),
        ("..", lambda: b"{}"),
        ("adapter_config.json\0.txt", lambda: b"{}"),
        ("", lambda: b"{}"),
    ],
)
def test_uploads(name: str, content: Callable[[], bytes], served: InProcess, client: openai.OpenAI) -> None:
    """No archive is ever unpacked, and a file's name is only compared, never used."""
    with served.http() as http:
        answer = http.post("/admin/adapters", data={"name": NAME}, files=[("file", (name, content()))])
    assert answer.status_code == 400, answer.text
    still_answers(client)


def test_a_name_taken_by_other_weights(served: InProcess, client: openai.OpenAI, make: Callable[..., Path]) -> None:
    served.register(NAME, make(seed=1)).raise_for_status()
    other = make(seed=2).rename(served.adapter_root / "other")
    with served.http() as http:
        answer = http.post("/admin/adapters", json={"name": NAME, "path": str(other)})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "name_taken")
        assert http.delete(f"/admin/adapters/{NAME}").status_code == 200
    still_answers(client)
