"""The application on a scripted engine, one for all tests here, for what needs no vLLM; a test takes milliseconds."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from adapters.base import BaseModel
from tests.inprocess import InProcess, in_process
from tests.scripted import ScriptedEngine


@pytest.fixture(scope="session")
def served(smollm2_base: BaseModel, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    engine = ScriptedEngine(tokenizer=tokenizer)
    data = tmp_path_factory.mktemp("served")
    with in_process(smollm2_base, engine, data, max_adapter_bytes=64 * 1024**2) as server:
        yield server


@pytest.fixture
def client(served: InProcess) -> openai.OpenAI:
    return served.openai()
