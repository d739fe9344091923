"""Uploads in parts, in a real database and folder."""

import contextlib
import hashlib
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine

from server.errors import InvalidRequest, NotFound, TooLarge
from server.state import uploads as state_uploads
from server.state.files import Files, Readable, StoredFile
from server.state.uploads import Uploads


class Slow(Files):
    """Writes a file only once two are at it, or nobody else came for a while."""

    both = threading.Barrier(2)

    def create(self, source: Readable, *arguments: str, **more: object) -> StoredFile:
        with contextlib.suppress(threading.BrokenBarrierError):  # the other was refused, as it should be
            self.both.wait(1)
        return super().create(source, *arguments, **more)  # pyright: ignore


@pytest.fixture
def uploads(database: Engine, tmp_path: Path) -> Uploads:
    return Uploads(database, tmp_path / "uploads", Files(database, tmp_path / "files", 100), 100)


def test_an_upload_is_completed_once(database: Engine, tmp_path: Path) -> None:
    files = Slow(database, tmp_path / "files", 10**9)
    uploads = Uploads(database, tmp_path / "uploads", files, 10**9)
    content = bytes(range(256)) * 4096
    upload = uploads.create("rows.bin", "user_data", len(content), None)
    parts = [uploads.add(upload.id, io.BytesIO(half)).id for half in (content[:500_000], content[500_000:])]

    def complete() -> str:
        try:
            return uploads.complete(upload.id, parts, hashlib.md5(content, usedforsecurity=False).hexdigest()).status
        except InvalidRequest as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(lambda _: complete(), range(2)))
    assert said[0] == "completed"
    assert "by another request" in said[1]
    file = uploads.get(upload.id).file
    assert file is not None
    assert file.path.read_bytes() == content
    with pytest.raises(InvalidRequest, match="is completed"):
        uploads.cancel(upload.id)


def test_a_part_that_comes_while_its_upload_is_cancelled_is_refused(uploads: Uploads, tmp_path: Path) -> None:
    upload = uploads.create("rows.bin", "user_data", 10, None)

    class Cancelling(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if uploads.get(upload.id).status == "pending":
                uploads.cancel(upload.id)
            return super().read(size)

    with pytest.raises(InvalidRequest, match="is cancelled"):
        uploads.add(upload.id, Cancelling(b"x"))
    left = tmp_path / "uploads" / upload.id
    left.mkdir()
    (left / "part_1").touch()
    uploads.delete_expired()
    assert not left.exists()
    assert uploads.get(upload.id).status == "cancelled"


def test_parts_are_bounded(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = uploads.create("rows.bin", "user_data", 9, None)
    with pytest.raises(InvalidRequest, match="empty"):
        uploads.add(upload.id, io.BytesIO())
    monkeypatch.setattr(state_uploads, "MAX_PARTS", 1)
    uploads.add(upload.id, io.BytesIO(b"a"))
    with pytest.raises(TooLarge, match="1 parts"):
        uploads.add(upload.id, io.BytesIO(b"b"))


@pytest.mark.parametrize("part", ["part_" + "a" * 300, "part_/../part_a", "part_", "x"])
def test_what_is_no_part_is_refused(part: str, uploads: Uploads) -> None:
    upload = uploads.create("rows.bin", "user_data", 9, None)
    with pytest.raises(InvalidRequest, match="is no part of"):
        uploads.complete(upload.id, [part], None)


def test_uploads_that_ended_are_forgotten(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = uploads.create("rows.bin", "user_data", 9, None)
    uploads.cancel(upload.id)
    uploads.delete_expired()
    assert uploads.get(upload.id).status == "cancelled"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + state_uploads.LIFETIME_SECONDS + 1)
    uploads.delete_expired()
    with pytest.raises(NotFound):
        uploads.get(upload.id)
