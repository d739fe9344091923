"""Files on disk, and their rows in a real SQLite database."""

import io
import os
from pathlib import Path

import pytest
from sqlalchemy import Engine

from server.errors import InvalidRequest, NotFound, TooLarge
from server.state.files import Files
from tests.server.state.conftest import rows_read


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


def test_a_nul_reaches_no_database(database: Engine, tmp_path: Path) -> None:
    """SQLite would take it, PostgreSQL answers with an error that nobody expects."""
    files = Files(database, tmp_path / "files", max_bytes=100)
    stored = files.create(io.BytesIO(b"x"), "a\0.jsonl", "fine-tune")
    assert stored.filename == "a\ufffd.jsonl"
    assert files.list("fine-tune\0") == []
    with pytest.raises(NotFound):
        files.get(f"{stored.id}\0")
