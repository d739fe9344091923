"""Adapters with random weights on every linear layer: the same work as trained ones, without training."""

from pathlib import Path

from adapters.base import BaseModel
from tests.conftest import noise_adapter

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def random_adapters(
    model: Path, root: Path, count: int, *, rank: int, modules: tuple[str, ...] = LINEAR, first_seed: int = 0
) -> list[Path]:
    """Write different adapters into folders under `root`; return the folders."""
    make = noise_adapter(_Folders(root))
    base = BaseModel.read(model)
    return [make(base, seed=first_seed + number, rank=rank, modules=modules) for number in range(count)]


class _Folders:
    """Makes new folders under a root, as `tests.conftest.Folders`."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def mktemp(self, basename: str) -> Path:
        """A new folder."""
        self._root.mkdir(parents=True, exist_ok=True)
        path = self._root / f"{basename}-{len(list(self._root.iterdir()))}"
        path.mkdir()
        return path
