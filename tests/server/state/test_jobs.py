"""Jobs in a real SQLite database."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine

from server.errors import InvalidRequest
from server.state.jobs import Jobs, NewJob
from server.state.status import Status
from tests.server.state.conftest import rows_read
from training.job import Supervised


def test_an_ended_job_changes_no_more(database: Engine, tmp_path: Path) -> None:
    jobs = Jobs(database, tmp_path)
    for identifier in ("ftjob-1", "ftjob-2"):
        job = NewJob(model="m", training_file="file-1", seed=1, method=Supervised(), labels={"team": "a"})
        jobs.create(identifier, job, None, "ft:m")
    assert [row.id for row in jobs.newest(lambda _: True, None, 10)] == ["ftjob-2", "ftjob-1"]
    assert [row.id for row in jobs.with_status(Status.QUEUED)] == ["ftjob-1", "ftjob-2"]
    assert jobs.advance("ftjob-1", Status.RUNNING)
    assert jobs.uses_file("file-1")
    assert jobs.cancel("ftjob-1").finished_at is not None
    assert not jobs.advance("ftjob-1", Status.SUCCEEDED, fine_tuned_model="ft:m")
    assert jobs.get("ftjob-1").fine_tuned_model is None
    with pytest.raises(InvalidRequest, match="already ended"):
        jobs.cancel("ftjob-1")


def test_jobs_created_at_once_get_a_number_each(database: Engine, tmp_path: Path) -> None:
    jobs = Jobs(database, tmp_path / "jobs")

    def create(number: int) -> None:
        job = NewJob(model="m", training_file="file-1", seed=0, method=Supervised(), labels={"n": str(number)})
        jobs.create(f"ftjob-{number}", job, None, "ft:m:o::1")

    with ThreadPoolExecutor(30) as pool:
        list(pool.map(create, range(60)))
    assert len(jobs.newest(lambda _: True, None, 100)) == 60
    assert sorted(row.number for row in jobs.with_status(Status.QUEUED)) == list(range(1, 61))


def test_a_page_of_jobs_is_read_no_further_than_it_goes(database: Engine, tmp_path: Path) -> None:
    jobs = Jobs(database, tmp_path / "jobs")
    for number in range(30):
        job = NewJob(model="m", training_file="file-1", seed=0, method=Supervised(), labels={"even": str(number % 2)})
        jobs.create(f"ftjob-{number}", job, None, "ft:m:o::1")
    with rows_read(database) as counts:
        newest = jobs.newest(lambda labels: labels == {"even": "0"}, "ftjob-20", 3)
    assert [row.id for row in newest] == ["ftjob-18", "ftjob-16", "ftjob-14"]
    assert counts[-1] == 3, "whole rows are read of the page only"
