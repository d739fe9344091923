"""Uploads in parts, in a real database and folder."""

import contextlib
import hashlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.database import connect
from server.errors import InvalidRequest
from server.state.files import Files, Readable, StoredFile
from server.state.tables import migrate
from server.state.uploads import Uploads


class Slow(Files):
    """Writes a file only once two are at it, or nobody else came for a while."""

    both = threading.Barrier(2)

    def create(self, source: Readable, *arguments: str, **more: object) -> StoredFile:
        with contextlib.suppress(threading.BrokenBarrierError):  # the other was refused, as it should be
            self.both.wait(1)
        return super().create(source, *arguments, **more)  # pyright: ignore


def test_an_upload_is_completed_once(tmp_path: Path) -> None:
    database = connect(f"sqlite:///{tmp_path / 'db'}")
    migrate(database)
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


def test_a_part_that_comes_while_its_upload_is_cancelled_is_refused(tmp_path: Path) -> None:
    database = connect(f"sqlite:///{tmp_path / 'db'}")
    migrate(database)
    uploads = Uploads(database, tmp_path / "uploads", Files(database, tmp_path / "files", 100), 100)
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
