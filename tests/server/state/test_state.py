"""Keys, files and jobs in a real SQLite database."""

import contextlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from adapters.database import connect
from server.errors import InvalidRequest, NotFound, TooLarge
from server.state.files import Files
from server.state.jobs import Jobs, NewJob
from server.state.keys import Keys
from server.state.status import Status
from server.state.tables import migrate
from training.job import Supervised


@pytest.fixture
def database(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'db'}")
    migrate(engine)
    return engine


def test_migrating_twice_changes_nothing(database: Engine) -> None:
    Keys(database).create("ann")
    migrate(database)
    assert [key.name for key in Keys(database).list()] == ["ann"]


def test_a_key_works_until_it_is_revoked_and_is_not_kept_in_clear(database: Engine, tmp_path: Path) -> None:
    keys = Keys(database)
    keys.create("admin", admin=True)
    key, secret = keys.create("ann")
    assert keys.check(secret) == key
    assert not key.admin
    assert keys.check(secret + "x") is None
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.glob("db*"))
    keys.revoke(key.id)
    assert keys.check(secret) is None
    with pytest.raises(NotFound):
        keys.revoke(key.id)


def test_the_first_start_makes_an_admin_key_and_the_last_cannot_be_revoked(database: Engine) -> None:
    keys = Keys(database)
    secret = keys.ensure_admin(None)
    assert secret is not None
    key = keys.check(secret)
    assert key is not None
    assert key.admin
    assert keys.ensure_admin(None) is None
    with pytest.raises(InvalidRequest, match="last admin key"):
        keys.revoke(key.id)
    assert keys.ensure_admin("sk-given") is None
    assert keys.check("sk-given") is not None


def test_another_admin_key_in_the_settings_ends_the_one_before(database: Engine) -> None:
    keys = Keys(database)
    keys.ensure_admin("sk-first")
    kept = keys.create("mine", admin=True)[1]
    assert Keys(database).ensure_admin("sk-second") is None
    for secret, valid in (("sk-first", False), ("sk-second", True), (kept, True)):
        assert (Keys(database).check(secret) is not None) == valid
    assert Keys(database).ensure_admin(None) is None, "there is one of mine"
    assert Keys(database).check("sk-second") is None


def test_a_users_key_does_not_become_the_admins(database: Engine) -> None:
    keys = Keys(database)
    _, secret = keys.create("ann")
    keys.ensure_admin("sk-before")
    with pytest.raises(InvalidRequest, match="the user key 'ann'"):
        keys.ensure_admin(secret)
    assert keys.check("sk-before") is not None, "a start that is refused changes nothing"
    key = keys.check(secret)
    assert key is not None
    assert not key.admin


def test_files_are_whole_or_not_there(database: Engine, tmp_path: Path) -> None:
    files = Files(database, tmp_path / "files", max_bytes=100)
    stored = files.create(io.BytesIO(b"x" * 100), "a.jsonl", "fine-tune")
    assert stored.path.read_bytes() == b"x" * 100
    assert (stored.bytes, stored.purpose, stored.filename) == (100, "fine-tune", "a.jsonl")
    with pytest.raises(TooLarge):
        files.create(io.BytesIO(b"x" * 101), "b.jsonl", "fine-tune")
    with pytest.raises(InvalidRequest, match="empty"):
        files.create(io.BytesIO(b""), "c.jsonl", "fine-tune")
    assert sorted(os.listdir(tmp_path / "files")) == sorted([".partial", stored.id])
    assert not os.listdir(tmp_path / "files" / ".partial")
    assert Files(database, tmp_path / "files", 100).list() == [stored]
    files.delete(stored.id)
    assert not stored.path.exists()
    with pytest.raises(NotFound):
        files.get(stored.id)


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


@pytest.mark.parametrize("descending", [True, False])
def test_pages_of_files_of_one_second_join_to_all_of_them(descending: bool, database: Engine, tmp_path: Path) -> None:
    files = Files(database, tmp_path / "files", max_bytes=100)
    made = {files.create(io.BytesIO(b"x"), "a.jsonl", "fine-tune").id for _ in range(25)}
    files.create(io.BytesIO(b"x"), "a.jsonl", "batch")
    read: list[list[str]] = []
    with rows_read(database) as counts:
        while not read or read[-1]:
            after = read[-1][-1] if read else None
            read.append([file.id for file in files.list("fine-tune", after, 10, descending=descending)])
    found = [file_id for page in read for file_id in page]
    assert [len(page) for page in read] == [10, 10, 5, 0]
    assert set(found) == made
    assert found == [file.id for file in files.list("fine-tune", descending=descending)]
    assert max(counts) <= 10
    with pytest.raises(InvalidRequest, match="no item 'file-none'"):
        files.list(None, "file-none")


def test_a_page_of_jobs_is_read_no_further_than_it_goes(database: Engine, tmp_path: Path) -> None:
    jobs = Jobs(database, tmp_path / "jobs")
    for number in range(30):
        job = NewJob(model="m", training_file="file-1", seed=0, method=Supervised(), labels={"even": str(number % 2)})
        jobs.create(f"ftjob-{number}", job, None, "ft:m:o::1")
    with rows_read(database) as counts:
        newest = jobs.newest(lambda labels: labels == {"even": "0"}, "ftjob-20", 3)
    assert [row.id for row in newest] == ["ftjob-18", "ftjob-16", "ftjob-14"]
    assert counts[-1] == 3, "whole rows are read of the page only"


@contextlib.contextmanager
def rows_read(engine: Engine) -> Iterator[list[int]]:
    """How many rows each query gives while the block runs."""
    counts: list[int] = []

    def read(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "LIMIT" in statement or " IN " in statement:
            counts.append(len(cursor.connection.cursor().execute(statement, parameters).fetchall()))

    event.listen(engine, "after_cursor_execute", read)
    yield counts
    event.remove(engine, "after_cursor_execute", read)


def test_a_nul_reaches_no_database(database: Engine, tmp_path: Path) -> None:
    """SQLite would take it, PostgreSQL answers with an error that nobody expects."""
    files = Files(database, tmp_path / "files", max_bytes=100)
    stored = files.create(io.BytesIO(b"x"), "a\0.jsonl", "fine-tune")
    assert stored.filename == "a\ufffd.jsonl"
    assert files.list("fine-tune\0") == []
    with pytest.raises(NotFound):
        files.get(f"{stored.id}\0")
