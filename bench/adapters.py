"""Adapters of random weights on every linear layer: the work of a trained one, without the training."""

from pathlib import Path

from adapters.base import BaseModel
from tests.conftest import noise_adapter

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def random_adapters(
    model: Path, root: Path, count: int, *, rank: int, modules: tuple[str, ...] = LINEAR, first_seed: int = 0
) -> list[Path]:
    """Folders under `root` with an adapter each, all different."""
    make = noise_adapter(_Folders(root))
    base = BaseModel.read(model)
    return [make(base, seed=first_seed + number, rank=rank, modules=modules) for number in range(count)]


class _Folders:
    """Makes new folders under one."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def mktemp(self, basename: str) -> Path:
        """A new folder."""
        self._root.mkdir(parents=True, exist_ok=True)
        path = self._root / f"{basename}-{len(list(self._root.iterdir()))}"
        path.mkdir()
        return path
