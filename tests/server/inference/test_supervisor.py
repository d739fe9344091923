"""The engine is kept alive, but not at any price."""

import asyncio
from pathlib import Path

import pytest
import tenacity

from adapters.base import BaseModel
from adapters.database import connect
from adapters.files.validate import Limits
from adapters.registry import Registry
from adapters.store import Store
from server.inference import supervisor as module
from server.inference.catalog import Catalog
from server.inference.residency import Residency
from server.inference.supervisor import Supervisor
from server.metrics import Metrics
from tests.conftest import MakeAdapter
from tests.scripted import ScriptedEngine

NAME = "ft:tiny:acme::1"


@pytest.fixture
def catalog(tiny_base: BaseModel, make_adapter: MakeAdapter, tmp_path: Path) -> Registry:
    registry = Registry(connect(f"sqlite:///{tmp_path / 'db'}"), Store(tmp_path / "a"), tiny_base, Limits(16))
    registry.register(NAME, make_adapter(tiny_base), owned_by="acme")
    return registry


def build(registry: Registry) -> tuple[Supervisor, Catalog, ScriptedEngine]:
    engine, metrics = ScriptedEngine(), Metrics()
    residency = Residency(engine, registry.store, metrics, slots=1, capacity=2)
    catalog = Catalog(registry, residency, None, metrics)
    return Supervisor(engine, catalog, metrics), catalog, engine


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


def test_a_dead_engine_is_started_again_with_its_adapters(catalog: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", tenacity.wait_none())

    async def check() -> None:
        supervisor, models, engine = build(catalog)
        supervisor.start()
        await until(lambda: supervisor.status == "ready")
        async with models.use(NAME):
            pass
        assert len(engine.held) == 1
        engine.dead.set()
        await until(lambda: engine.starts == 2 and supervisor.status == "ready")
        await until(lambda: len(engine.held) == 1)
        await supervisor.stop()

    asyncio.run(check())


def test_one_that_keeps_dying_is_given_up(catalog: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", tenacity.wait_none())

    async def check() -> None:
        supervisor, _, engine = build(catalog)
        supervisor.start()
        await until(lambda: supervisor.status == "ready")
        for start in range(1, module.MAX_FAILURES + 1):
            assert engine.starts == start
            engine.dead.set()
            await until(lambda: engine.starts > start or supervisor.status == "failed")  # noqa: B023
        await until(lambda: supervisor.status == "failed")
        assert engine.starts == module.MAX_FAILURES
        await supervisor.stop()

    asyncio.run(check())


def test_pinned_adapters_are_loaded_at_start(catalog: Registry) -> None:
    catalog.pin(NAME, True)

    async def check() -> None:
        supervisor, models, engine = build(catalog)
        supervisor.start()
        await until(lambda: len(engine.held) == 1)
        assert models.state(catalog.get(NAME)) == ("ready", None)
        await supervisor.stop()

    asyncio.run(check())
