"""The queue of jobs outlives what nobody foresaw."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from adapters.database import connect
from server import jobs
from server.jobs import JobQueue
from server.state.jobs import Jobs
from server.state.tables import JobRow, migrate


class Faulty(Jobs):
    """Fails once in a way of its own."""

    looked = 0

    def with_status(self, *statuses: str) -> list[JobRow]:
        self.looked += 1
        if self.looked == 2:
            raise RuntimeError("nobody foresaw this")
        return super().with_status(*statuses)


@pytest.mark.anyio
async def test_the_queue_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "RETRY_SECONDS", 0.01)
    engine = connect(f"sqlite:///{tmp_path / 'db'}")
    migrate(engine)
    rows = Faulty(engine, tmp_path / "jobs")
    unused: Any = None
    queue = JobQueue(rows, unused, unused, unused, unused, unused, organization="o", max_running=1)
    await queue.start()

    async def looked_again() -> None:
        while rows.looked < 3:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(looked_again(), 10)
    queue._loop.cancel()  # pyright: ignore


def test_jobs_wait_where_fewer_devices_are_left_than_ran(tmp_path: Path) -> None:
    unused: Any = None
    queue = JobQueue(
        unused, unused, unused, unused, unused, unused, organization="o", max_running=2, devices=["0", "1"]
    )
    queue._running = dict.fromkeys(("a", "b", "c"), unused)  # pyright: ignore
    assert [queue._place(job) for job in "abc"] == [True, True, False]  # pyright: ignore
    del queue._running["a"]  # pyright: ignore
    assert queue._place("c")  # pyright: ignore
    assert queue._placed["c"] == "0"  # pyright: ignore
    assert queue._place("b")  # pyright: ignore
    assert queue._placed["b"] == "1"  # pyright: ignore
