"""Shared by all tests: SmolLM2, prepared once per machine; a tiny random Llama, made once per run; random adapters."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from adapters.base import BaseModel
from bench.random_adapters import noise_adapter
from tests.bounded import RUNNING_VARIABLE

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
LONG_FIRST = ("e2e", "bench", "training", "server")
MISTREATED = ("test_alive", "test_export", "test_platform")  # end-to-end tests of the second server
MakeAdapter = Callable[..., Path]
# Limits for tests whose fixtures train or start an engine: three times their duration on two idle cores.
FIXTURE_SECONDS = {"job": 500, "mistreated": 300, "running": 300, "stock": 300, "spawner": 240}


class Sharing(LoadScopeScheduling):
    """How two processes share the tests (`make test`): end-to-end tests of one server stay together and come first.

    The other tests are shared by file, the long ones first.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if not file.startswith("tests/e2e/"):
            return file
        return "mistreated" if Path(file).stem in MISTREATED else "running"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing:
    """xdist's hook."""
    return Sharing(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests with slow fixtures more time, and sort tests; those that end a server come last in their group."""
    for item in items:
        if item.get_closest_marker("timeout") is None and isinstance(item, pytest.Function):
            slow = [seconds for name, seconds in FIXTURE_SECONDS.items() if name in item.fixturenames]
            if slow:
                item.add_marker(pytest.mark.timeout(max(slow)))
    items.sort(key=lambda item: (_turn(item), item.get_closest_marker("last") is not None))


def _turn(item: pytest.Item) -> int:
    folder = item.path.relative_to(TESTS).parts[0]
    return LONG_FIRST.index(folder) if folder in LONG_FIRST else len(LONG_FIRST)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Write which test runs, for tests/bounded.py, which names it if the run takes too long."""
    if folder := os.environ.get(RUNNING_VARIABLE):
        (Path(folder) / os.environ.get("PYTEST_XDIST_WORKER", "main")).write_text(nodeid)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, in the same folder as `make demo` uses."""
    from demo.base import prepare

    return prepare(ROOT / "var" / "models")


@pytest.fixture(scope="session")
def smollm2_base(smollm2: Path) -> BaseModel:
    return BaseModel.read(smollm2)


@pytest.fixture(scope="session")
def tokenizer(smollm2: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A random Llama of two layers with SmolLM2's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # vLLM's fp32 attention on CPUs needs heads of 32 or more
        num_key_value_heads=1,
        max_position_embeddings=4096,
        eos_token_id=2,
        tie_word_embeddings=True,
        initializer_range=0.3,  # so that tied embeddings of width 64 give different tokens
    )
    path = tmp_path_factory.mktemp("models") / "tiny"
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """Like `tiny`, but with bytes as tokens, since SmolLM2's 49,152 logits take most of a tiny model's step."""
    import torch
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    byte = Tokenizer(BPE({letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    byte.pre_tokenizer, byte.decoder = ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
    marks: dict[str, Any] = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    bytewise = PreTrainedTokenizerFast(tokenizer_object=byte, extra_special_tokens=["<|im_start|>"], **marks)
    bytewise.chat_template = tokenizer.chat_template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(bytewise),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        eos_token_id=bytewise.eos_token_id,
        initializer_range=0.3,
    )
    path = tmp_path_factory.mktemp("models") / "small"
    LlamaForCausalLM(config).save_pretrained(path)
    bytewise.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tiny_base(tiny: Path) -> BaseModel:
    return BaseModel.read(tiny)


@pytest.fixture
def make_adapter(tmp_path_factory: pytest.TempPathFactory) -> MakeAdapter:
    return noise_adapter(partial(tmp_path_factory.mktemp, "adapter"))


@pytest.fixture(scope="session")
def make_lasting_adapter(tmp_path_factory: pytest.TempPathFactory) -> MakeAdapter:
    return noise_adapter(partial(tmp_path_factory.mktemp, "adapter"))
