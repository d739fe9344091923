"""Whose turn it is, what is loaded, evicted, pinned and drained, in every order that requests may come in."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.errors import AdapterDamaged
from adapters.files.validate import CONFIG
from adapters.registry import Adapter
from adapters.store import Store
from server.errors import AdapterLoadFailed, InvalidRequest
from server.inference import residency as module
from server.inference.residency import Residency
from server.metrics import Metrics
from tests.scripted import ScriptedEngine

SLOTS, CAPACITY = 2, 4
Make = Callable[[], tuple[Residency, ScriptedEngine]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def adapters(store: Store) -> list[Adapter]:
    made: list[Adapter] = []
    for number in range(10):
        with store.staging() as staged:
            (staged / CONFIG).write_text(str(number))
            digest = store.seal(staged)
            store.publish(staged, digest)
        made.append(Adapter(f"ft:{number}", digest, "b", 1, 1, "o", 0, False, store.path(digest)))
    return made


@pytest.fixture
def make(store: Store) -> Make:
    def build() -> tuple[Residency, ScriptedEngine]:
        engine = ScriptedEngine(CAPACITY)
        return Residency(engine, store, Metrics(), slots=SLOTS, capacity=CAPACITY), engine

    return build


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0.01)


def test_a_load_is_shared_and_loads_queue(make: Make, adapters: list[Adapter]) -> None:
    async def check() -> None:
        residency, engine = make()
        engine.gate.clear()

        async def request(adapter: Adapter) -> None:
            async with residency.hold(adapter):
                assert adapter.digest in engine.held

        requests = [asyncio.create_task(request(adapters[number])) for number in (0, 0, 0, 1)]
        await settle()
        assert residency.state(adapters[0].digest) == ("loading", None)
        engine.gate.set()
        await asyncio.gather(*requests)
        assert [call for call, _ in engine.calls] == ["load", "load"]
        assert residency.state(adapters[0].digest) == ("ready", None)

    asyncio.run(check())


def test_at_most_slots_adapters_run_and_first_come_first_served(make: Make, adapters: list[Adapter]) -> None:
    async def check() -> None:
        residency, _ = make()
        order: list[str] = []

        async def request(adapter: Adapter, until: asyncio.Event) -> None:
            async with residency.hold(adapter):
                order.append(adapter.name)
                await until.wait()

        gates = [asyncio.Event() for _ in range(5)]
        tasks = [asyncio.create_task(request(adapters[n], gates[n])) for n in range(5)]
        await settle()
        assert sorted(order) == ["ft:0", "ft:1"]
        for number in range(5):
            gates[number].set()
            await settle()
        await asyncio.gather(*tasks)
        assert order[2:] == ["ft:2", "ft:3", "ft:4"]

    asyncio.run(check())


def test_a_popular_adapter_cannot_starve_a_rare_one(
    make: Make, adapters: list[Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two popular ones keep both slots; without patience's end the rare one would wait for ever."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)

    async def check() -> None:
        residency, _ = make()
        popular_may_go = asyncio.Event()

        async def popular(adapter: Adapter) -> None:
            while not popular_may_go.is_set():
                async with residency.hold(adapter):
                    await asyncio.sleep(0.005)

        tasks = [asyncio.create_task(popular(adapters[n])) for n in (0, 1) for _ in range(3)]
        await settle()
        for _ in range(3):
            started = time.monotonic()
            async with residency.hold(adapters[2]):
                assert time.monotonic() - started < 1
        popular_may_go.set()
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(check(), 20))


def test_the_least_recently_used_goes_but_never_a_pinned_one(make: Make, adapters: list[Adapter]) -> None:
    async def check() -> None:
        residency, engine = make()
        residency.pin(adapters[0].digest)
        for number in (0, 1, 2, 3, 1, 4):
            async with residency.hold(adapters[number]):
                pass
        assert engine.held == {adapters[n].digest for n in (0, 1, 3, 4)}
        assert residency.state(adapters[2].digest) == ("registered", None)
        residency.pin(adapters[1].digest)
        with pytest.raises(InvalidRequest, match="2 may be"):
            residency.pin(adapters[2].digest)
        residency.unpin(adapters[1].digest)
        residency.pin(adapters[2].digest)

    asyncio.run(check())


def test_unloading_drains_and_later_requests_load_again(make: Make, adapters: list[Adapter]) -> None:
    async def check() -> None:
        residency, engine = make()
        digest = adapters[0].digest
        async with contextlib.AsyncExitStack() as running:
            await running.enter_async_context(residency.hold(adapters[0]))
            unloading = asyncio.create_task(residency.unload(digest))
            await settle()

            async def late() -> None:
                async with residency.hold(adapters[0]):
                    assert digest in engine.held

            later = asyncio.create_task(late())
            await settle()
            assert digest in engine.held
            assert not unloading.done()
            assert not later.done()
        await unloading
        await later
        assert [call for call, _ in engine.calls] == ["load", "unload", "load"]

    asyncio.run(check())


def test_damage_on_disk_is_found_before_the_engine_sees_it(make: Make, adapters: list[Adapter], store: Store) -> None:
    async def check() -> None:
        residency, engine = make()
        file = store.path(adapters[0].digest) / CONFIG
        content = file.read_text()
        file.chmod(0o644)
        for broken in ("changed", None):
            file.unlink() if broken is None else file.write_text(broken)
            with pytest.raises(AdapterDamaged, match="register the same adapter again"):
                async with residency.hold(adapters[0]):
                    pass
            state, error = residency.state(adapters[0].digest)
            assert state == "failed"
            assert "register the same adapter again" in str(error)
        assert engine.calls == []
        file.write_text(content)
        async with residency.hold(adapters[0]):
            assert residency.state(adapters[0].digest) == ("ready", None)

    asyncio.run(check())


def test_a_failed_load_fails_all_who_wait_and_is_tried_again(make: Make, adapters: list[Adapter]) -> None:
    async def check() -> None:
        residency, engine = make()
        engine.failing.add(adapters[0].digest)

        async def request() -> None:
            async with residency.hold(adapters[0]):
                pass

        results = await asyncio.gather(*(request() for _ in range(3)), return_exceptions=True)
        assert all(isinstance(result, AdapterLoadFailed) for result in results)
        engine.failing.clear()
        await request()
        assert residency.state(adapters[0].digest) == ("ready", None)

    asyncio.run(check())


def test_after_the_engines_death_its_adapters_come_back(make: Make, adapters: list[Adapter]) -> None:
    async def check() -> None:
        residency, engine = make()
        for number in (0, 1, 2):
            async with residency.hold(adapters[number]):
                pass
        await engine.start()
        residency.reset()
        assert residency.state(adapters[0].digest) == ("registered", None)
        await residency.restore([adapters[5]])
        assert engine.held == {adapters[n].digest for n in (0, 1, 2, 5)}

    asyncio.run(check())


def test_whatever_comes_in_whatever_order(make: Make, adapters: list[Adapter]) -> None:
    """Requests, cancellations, unloads and failures at random: nobody hangs, and no turn is lost."""

    async def check(seed: int) -> None:
        chance = random.Random(seed)
        residency, engine = make()
        running: dict[str, int] = {}

        async def request(adapter: Adapter) -> None:
            with contextlib.suppress(AdapterLoadFailed):
                async with residency.hold(adapter):
                    running[adapter.name] = running.get(adapter.name, 0) + 1
                    assert sum(1 for count in running.values() if count) <= SLOTS
                    assert adapter.digest in engine.held
                    try:
                        await asyncio.sleep(chance.random() * 0.01)
                        assert adapter.digest in engine.held
                    finally:
                        running[adapter.name] -= 1

        tasks: list[asyncio.Task[None]] = []
        for _ in range(200):
            adapter = chance.choice(adapters)
            action = chance.random()
            if action < 0.75:
                tasks.append(asyncio.create_task(request(adapter)))
            elif action < 0.85:
                tasks.append(asyncio.create_task(residency.unload(adapter.digest)))
            elif action < 0.95 and tasks:
                chance.choice(tasks).cancel()
            else:
                engine.failing.symmetric_difference_update({adapter.digest})
            await asyncio.sleep(chance.random() * 0.002)
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert [task.exception() for task in tasks if not task.cancelled() and task.exception()] == []
        engine.failing.clear()
        await settle()
        for adapter in adapters:
            async with asyncio.timeout(5):
                await request(adapter)

    for seed in range(5):
        asyncio.run(check(seed))
