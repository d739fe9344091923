"""The queue of jobs outlives what nobody foresaw."""

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest

from adapters.base import BaseModel
from adapters.database import connect
from adapters.files.validate import Limits
from adapters.registry import Registry
from adapters.store import Store
from server.inference.catalog import Catalog
from server.jobs import queue as module
from server.jobs.queue import JobQueue
from server.state.files import Files
from server.state.jobs import JobRow, Jobs
from server.state.tables import migrate
from tests.conftest import MakeAdapter
from training.directory import JobDirectory
from training.job import Gate, Result, Supervised, Verdict


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
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
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


@pytest.fixture
def queue(tmp_path: Path, tiny_base: BaseModel, make_adapter: MakeAdapter) -> JobQueue:
    """A queue beside a registry with two versions of which the alias serves the first."""
    engine = connect(f"sqlite:///{tmp_path / 'db'}")
    migrate(engine)
    unused: Any = None
    registry = Registry(engine, Store(tmp_path / "store"), tiny_base, Limits(16))
    catalog = Catalog(registry, unused, unused, unused)
    for seed, name in enumerate(("ft:tiny:o:a:v1", "ft:tiny:o:a:v2")):
        catalog.register(name, make_adapter(tiny_base, seed=seed), "o")
    catalog.set_alias("ft:a", {"ft:tiny:o:a:v1": 1}, "o")
    files = Files(engine, tmp_path / "files", 1_000)
    return JobQueue(
        Jobs(engine, tmp_path / "jobs"), files, catalog, tiny_base, unused, unused, organization="o", max_running=1
    )


def described(queue: JobQueue, gate: Gate, parent: str | None = None) -> tuple[JobRow, JobDirectory]:
    """A job and its directory, as they are when the trainer starts."""
    file = queue._files.create(io.BytesIO(b"{}"), "train.jsonl", "fine-tune")  # pyright: ignore
    row = queue._jobs.create(  # pyright: ignore
        "ftjob-1", model="m", result_name="ft:tiny:o::r", seed=0, method=Supervised(), gate=gate, parent=parent,
        accept_findings=False, integrations=[], labels=None, training_file=file.id, validation_file=None,
        retention_file=None,
    )  # fmt: skip
    return row, queue._prepare(row)  # pyright: ignore


@pytest.mark.parametrize(
    ("gate", "parent", "incumbent"),
    [
        (Gate(), None, None),
        (Gate(alias="ft:new"), None, None),
        (Gate(alias="ft:a"), None, "ft:tiny:o:a:v1"),
        (Gate(), "ft:tiny:o:a:v2", "ft:tiny:o:a:v2"),
        (Gate(alias="ft:a"), "ft:tiny:o:a:v2", "ft:tiny:o:a:v1"),
        (Gate(alias="ft:a"), "ft:tiny:o:a:v1", "ft:tiny:o:a:v1"),
    ],
)
def test_a_job_has_to_beat_what_its_alias_serves_or_what_it_goes_on_from(
    gate: Gate, parent: str | None, incumbent: str | None, queue: JobQueue
) -> None:
    job = described(queue, gate, parent)[1].job()
    assert job.incumbent_name == incumbent
    assert (job.incumbent is None) == (incumbent is None)
    if job.incumbent is not None:
        assert (job.incumbent / "adapter_model.safetensors").exists()
        assert (job.incumbent == job.parent) == (incumbent == parent)


def test_an_alias_that_was_moved_meanwhile_is_left_alone(queue: JobQueue) -> None:
    """The result is proven better than version 1; of version 2, which the alias serves by now, nothing is known."""
    row, directory = described(queue, Gate(alias="ft:a"))
    verdict = Verdict(passed=True, reasons=[], alias="ft:a")
    result = Result(trained_tokens=1, best_step=1, checkpoints=[], hyperparameters={}, verdict=verdict)
    catalog = queue._catalog  # pyright: ignore
    catalog.register("ft:tiny:o::r", catalog.registry.store.path(catalog.registry.get("ft:tiny:o:a:v1").digest), "o")
    catalog.set_alias("ft:a", {"ft:tiny:o:a:v2": 1}, "o")
    queue._promote(row, result, directory)  # pyright: ignore
    assert catalog.registry.alias("ft:a").weights == {"ft:tiny:o:a:v2": 1}
    assert (
        "it serves ft:tiny:o:a:v2 by now, and the job was judged against ft:tiny:o:a:v1"
        in (directory.events()[-1]["message"])
    )
    catalog.set_alias("ft:a", {"ft:tiny:o:a:v1": 1}, "o")
    queue._promote(row, result, directory)  # pyright: ignore
    assert catalog.registry.alias("ft:a").weights == {"ft:tiny:o::r": 1}
