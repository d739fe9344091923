"""The base model as adapters see it: its name and the shape of each weight an adapter can sit on."""

from dataclasses import dataclass
from pathlib import Path

from adapters.base_names import named, same_weights
from adapters.files.tensors import headers


@dataclass(frozen=True)
class BaseModel:
    """A base model on local disk.

    Attributes:
        name: served name, the second field of `ft:` names.
        path: folder with `config.json`, safetensors and tokenizer.
        shapes: module name -> (out_features, in_features) of its two-dimensional weight, embeddings included.
    """

    name: str
    path: Path
    shapes: dict[str, tuple[int, int]]

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> "BaseModel":
        """Describe the model in `path`; only the safetensors headers are read.

        Raises:
            FileNotFoundError: no `config.json` or no safetensors in the folder.
        """
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path} holds no config.json; expected a model in Hugging Face format")
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise FileNotFoundError(f"{path} holds no *.safetensors; convert the model's weights to safetensors first")
        shapes: dict[str, tuple[int, int]] = {}
        for file in files:
            for tensor, entry in headers(file).items():
                if tensor.endswith(".weight") and len(entry["shape"]) == 2:
                    shapes[tensor.removesuffix(".weight")] = (entry["shape"][0], entry["shape"][1])
        return cls(name or named(str(path)), path, shapes)

    def is_named(self, name: str) -> bool:
        """Whether a name that a trainer wrote means these weights, whatever its folder, owner and quantisation."""
        return same_weights(name, self.name) or name.rstrip("/") == str(self.path)
