"""Stores on a real database, and a registry with two versions and an alias that points at the first."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from adapters.base import BaseModel
from adapters.files.validate import Limits
from adapters.registry import Registry
from adapters.store import Store
from server.inference.catalog import Catalog
from server.jobs.preparation import Preparation
from server.jobs.publishing import Publishing
from server.state.files import Files
from server.state.jobs import JobRow, Jobs, NewJob
from server.state.status import Status
from tests.conftest import MakeAdapter
from training.job import Gate, Supervised


@dataclass(frozen=True)
class Parts:
    """The stores that jobs need, and `Preparation` and `Publishing` on them."""

    jobs: Jobs
    files: Files
    catalog: Catalog
    preparation: Preparation
    publishing: Publishing

    def queued(self, gate: Gate | None = None, parent: str | None = None, job_id: str = "ftjob-1") -> JobRow:
        """Make a waiting job."""
        file = self.files.create(io.BytesIO(b"{}"), "train.jsonl", "fine-tune")
        job = NewJob(model="m", training_file=file.id, method=Supervised(), seed=0, gate=gate or Gate())
        return self.jobs.create(job_id, job, parent, "ft:tiny:o::r")

    def status(self, job_id: str) -> Status:
        """The job's status, even if a test makes `get` fail."""
        return Status(Jobs.get(self.jobs, job_id).status)


@pytest.fixture
def parts(database: Engine, tmp_path: Path, tiny_base: BaseModel, make_adapter: MakeAdapter) -> Parts:
    unused: Any = None
    catalog = Catalog(Registry(database, Store(tmp_path / "store"), tiny_base, Limits(16)), unused, unused, unused)
    for seed, name in enumerate(("ft:tiny:o:a:v1", "ft:tiny:o:a:v2")):
        catalog.register(name, make_adapter(tiny_base, seed=seed), "o")
    catalog.set_alias("ft:a", {"ft:tiny:o:a:v1": 1}, "o")
    jobs, files = Jobs(database, tmp_path / "jobs"), Files(database, tmp_path / "files", 1_000)
    preparation = Preparation(jobs, files, catalog, tiny_base)
    return Parts(jobs, files, catalog, preparation, Publishing(jobs, files, catalog, "o"))
