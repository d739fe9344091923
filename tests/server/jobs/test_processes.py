"""Trainers forked by the real spawner: one after the other, one that is no longer wanted, and a spawner that dies."""

import asyncio
from pathlib import Path

import psutil
import pytest

from server.jobs.processes import Trainers
from tests.training.methods.test_supervised import description
from training.directory import JobDirectory
from training.job import Result


def spawners(others: list[psutil.Process]) -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if child not in others and child.cmdline()[-1:] == ["--wait"]]


async def until_it_trains(directory: JobDirectory) -> None:
    async with asyncio.timeout(120):
        while not any("loss" in event["message"] for event in directory.events()):
            await asyncio.sleep(0.05)


@pytest.mark.timeout(300)
def test_trainers_come_from_one_spawner_and_outlive_it(tmp_path: Path, tiny: Path) -> None:
    def job(name: str, **hyperparameters: int) -> JobDirectory:
        (tmp_path / name).mkdir()
        wanted = description(tmp_path / name, tiny, **hyperparameters)
        return JobDirectory.create(tmp_path / name / "job", wanted)

    async def check() -> None:
        others = spawners([])
        trainers = Trainers(keep_warm=True, log=tmp_path / "log")
        await trainers.warm()
        (spawner,) = spawners(others)

        unwanted = job("unwanted")
        starting = asyncio.create_task(trainers.start(unwanted, {}))  # its imports take seconds
        await asyncio.sleep(0.5)
        starting.cancel()
        await trainers.stop(unwanted)

        for name in ("first", "second"):
            directory = job(name, n_epochs=1)
            trainer = await trainers.start(directory, {"WANDB_MODE": "offline"})
            assert directory.trainer_pid() is not None, "it holds the job's lock by then"
            assert await trainer == 0
            assert isinstance(directory.outcome(), Result)
        assert spawners(others) == [spawner]
        assert unwanted.outcome() is None
        assert unwanted.trainer_pid() is None
        assert not any("Training started" in event["message"] for event in unwanted.events())

        long = job("long", n_epochs=50)
        trainer = await trainers.start(long, {})
        await until_it_trains(long)
        spawner.kill()
        await asyncio.wait({trainer}, timeout=10)
        assert isinstance(trainer.exception(), ConnectionError)
        assert long.trainer_pid() is not None, "it trains on"
        await trainers.stop(long)
        assert long.trainer_pid() is None
        assert long.outcome() is None

        again = job("again", n_epochs=1)
        trainer = await trainers.start(again, {})  # without a spawner: a process of its own
        assert await trainer == 0
        await trainers.warm()
        assert spawners(others) != []
        await trainers.close()
        assert spawners(others) == []

    asyncio.run(check())
