import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from adapters.base import BaseModel


@pytest.mark.parametrize("config", [{"num_hidden_layers": 2}, {"text_config": {"num_hidden_layers": 2}}])
def test_layers_that_only_predict_further_tokens_are_no_layers(config: dict[str, object], tmp_path: Path) -> None:
    """As DeepSeek-V3, GLM-4.5 and Qwen3-Next ship them: transformers and vLLM load none of them for generation."""
    names = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(3)]
    names += ["mtp.layers.0.self_attn.q_proj", "model.embed_tokens"]
    save_file({f"{name}.weight": torch.zeros(4, 4) for name in names}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert set(BaseModel.read(tmp_path).shapes) == {*names[:2], "model.embed_tokens"}
