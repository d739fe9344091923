"""Names that change while others ask for them."""

import threading
from pathlib import Path

import pytest

from adapters.base import BaseModel
from adapters.registry import Alias
from server.inference.catalog import Catalog
from server.inference.residency import Residency
from server.metrics import Metrics
from tests.adapters.test_registry import open_registry
from tests.conftest import MakeAdapter
from tests.scripted import ScriptedEngine


def test_an_alias_moved_twice_at_once_is_the_same_in_memory_and_database(
    make_adapter: MakeAdapter, tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = open_registry(tmp_path, tiny_base)
    for number in (1, 2):
        registry.register(f"ft:a:v{number}", make_adapter(tiny_base, seed=number), owned_by="acme")
    metrics = Metrics()
    catalog = Catalog(
        registry, Residency(ScriptedEngine(), registry.store, metrics, slots=1, capacity=1), None, metrics
    )
    stored, first, second = registry.set_alias, threading.Event(), threading.Event()

    def slow(name: str, weights: dict[str, int], *, owned_by: str) -> Alias:
        alias = stored(name, weights, owned_by=owned_by)
        if "ft:a:v1" in weights:
            first.set()
            second.wait(0.5)  # the other comes between the database and memory, if it can
        else:
            second.set()
        return alias

    monkeypatch.setattr(registry, "set_alias", slow)
    moves = [
        threading.Thread(target=catalog.set_alias, args=("ft:a", {f"ft:a:v{number}": 1}, "acme")) for number in (1, 2)
    ]
    moves[0].start()
    assert first.wait(10)
    moves[1].start()
    for move in moves:
        move.join(10)
    assert catalog._aliases["ft:a"] == registry.alias("ft:a")  # pyright: ignore[reportPrivateUsage]
