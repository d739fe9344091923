"""The base model as adapters see it: its name and the shape of each weight an adapter can sit on."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.base_names import named, same_weights
from adapters.chat import ending
from adapters.files.tensors import headers

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class BaseModel:
    """A base model on local disk.

    Attributes:
        name: served name, the second field of `ft:` names.
        path: folder with `config.json`, safetensors and tokenizer.
        shapes: module name -> (out_features, in_features) of its two-dimensional weight, embeddings included. Layers
            that only predict further tokens (MTP) are left out, as transformers and vLLM load none.
        ends: tokens that end an answer, by the model's own files.
        chat_template: the server's template, used instead of the tokenizer's own.
    """

    name: str
    path: Path
    shapes: dict[str, tuple[int, int]]
    ends: tuple[int, ...] = ()
    chat_template: str | None = None

    @classmethod
    def read(cls, path: Path, name: str | None = None, chat_template: str | None = None) -> "BaseModel":
        """Describe the model in `path`; only the safetensors headers are read.

        Raises:
            FileNotFoundError: no `config.json` or no safetensors in the folder.
        """
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path} holds no config.json; expected a model in Hugging Face format")
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise FileNotFoundError(f"{path} holds no *.safetensors; convert the model's weights to safetensors first")
        layers = _layers(path / "config.json")
        shapes: dict[str, tuple[int, int]] = {}
        for file in files:
            for tensor, entry in headers(file).items():
                if tensor.endswith(".weight") and len(entry["shape"]) == 2 and _is_loaded(tensor, layers):
                    shapes[tensor.removesuffix(".weight")] = (entry["shape"][0], entry["shape"][1])
        return cls(name or named(str(path)), path, shapes, ending.of_base(path), chat_template)

    def is_named(self, name: str) -> bool:
        """Whether a base's name in a trainer's files means these weights; folder, owner and format do not count."""
        return same_weights(name, self.name) or name.rstrip("/") == str(self.path)


def _layers(config: Path) -> int | None:
    """How many layers the model has; None where its config does not say."""
    content: dict[str, Any] = json.loads(config.read_bytes())
    count = (content.get("text_config") or content).get("num_hidden_layers")
    return count if isinstance(count, int) else None


def _is_loaded(tensor: str, layers: int | None) -> bool:
    number = _LAYER.search(tensor)
    beyond = layers is not None and number is not None and int(number[1]) >= layers
    return not beyond and not any(part.startswith("mtp") for part in tensor.split("."))
