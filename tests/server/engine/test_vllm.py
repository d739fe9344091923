"""What is refused before vLLM starts."""

import json
from pathlib import Path

import pytest

from adapters.base import BaseModel
from server.engine.vllm import _check_takes_adapters  # pyright: ignore[reportPrivateUsage]
from server.errors import EngineUnavailable


@pytest.mark.parametrize(("kind", "taken"), [("GPT2LMHeadModel", False), ("LlamaForCausalLM", True), ("Own", True)])
def test_a_base_that_takes_no_adapters_is_refused_by_name(kind: str, taken: bool, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [kind]}))
    base = BaseModel("base", tmp_path, {})
    if taken:
        _check_takes_adapters(base)
    else:
        with pytest.raises(EngineUnavailable, match="base is a GPT2LMHeadModel, which vLLM serves without adapters"):
            _check_takes_adapters(base)
