"""Files of `/v1/files`: a row in the database, the bytes in the data folder under the file's id."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from sqlalchemy import BigInteger, Engine, delete, func, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from server.errors import InvalidRequest, NotFound, TooLarge
from server.state.ids import random_id
from server.state.tables import Base, Written, following

RESULTS = ("fine-tune-results", "batch_output")  # purposes of files that jobs and batches write
_CHUNK_BYTES = 1 << 20


class FileRow(Base):
    """An uploaded or produced file; its bytes lie in the data folder under its id."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(Written(64), primary_key=True)
    filename: Mapped[str] = mapped_column(Written())
    purpose: Mapped[str] = mapped_column(Written(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; b"" at the end."""
        ...


@dataclass(frozen=True)
class StoredFile:
    """A file; `created_at` and `expires_at` in Unix seconds, `path` where its bytes are."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None
    path: Path


class Files:
    """Files in the database, their bytes under `root`."""

    def __init__(
        self,
        engine: Engine,
        root: Path,
        max_bytes: int,
        *,
        max_files: int | None = None,
        max_stored_bytes: int | None = None,
    ) -> None:
        """Open the store.

        Args:
            max_bytes: of one file that is uploaded.
            max_files: that were uploaded; None: no limit.
            max_stored_bytes: of all; None: no limit. A result is never refused, but leaves less room to others.
        """
        self._engine = engine
        self._root = root
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._max_stored_bytes = max_stored_bytes
        shutil.rmtree(root / ".partial", ignore_errors=True)  # left by a crash: one server owns a data folder
        (root / ".partial").mkdir(parents=True)

    def create(
        self,
        source: Readable,
        filename: str,
        purpose: str,
        *,
        file_id: str | None = None,
        expires_after: int | None = None,
    ) -> StoredFile:
        """Store a stream as a file, whole and synced to disk, or not at all.

        Args:
            file_id: id for a job's result, known beforehand; storing it again replaces the file.
            expires_after: seconds from now until the file is deleted; None: it stays.

        Raises:
            TooLarge: a limit is reached.
            InvalidRequest: the file is empty, or is training data without a .jsonl name.
        """
        check_name(filename, purpose, "file")
        largest = sys.maxsize if purpose in RESULTS else self._max_bytes
        room = sys.maxsize if file_id else self._room()
        file_id = file_id or random_id("file-")
        partial = self._root / ".partial" / file_id
        size = 0
        try:
            with partial.open("wb") as target:
                while chunk := source.read(_CHUNK_BYTES):
                    size += len(chunk)
                    if size > largest:
                        raise TooLarge(f"the file is larger than the limit of {largest} bytes (max_file_bytes)")
                    if size > room:
                        raise self._full()
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            if size == 0:
                raise InvalidRequest("the file is empty", "file")
            partial.replace(self._root / file_id)
        finally:
            partial.unlink(missing_ok=True)
        now = int(time.time())
        row = FileRow(
            id=file_id,
            filename=filename,
            purpose=purpose,
            bytes=size,
            created_at=now,
            expires_at=now + expires_after if expires_after else None,
        )
        with Session(self._engine) as session, session.begin():
            session.merge(row)
        return self.get(file_id)

    def get(self, file_id: str, *, needed: bool = False) -> StoredFile:
        """The file of that id.

        Args:
            needed: return an expired file too, since a waiting job or batch needs it.

        Raises:
            NotFound: there is none.
        """
        with Session(self._engine) as session:
            row = session.get(FileRow, file_id)
            if row is None or (_expired(row) and not needed):
                raise _no_such(file_id)
            return self._file(row)

    def open(self, file_id: str) -> tuple[StoredFile, BinaryIO]:
        """The file of that id and its bytes, which can be read to their end even when it is deleted meanwhile.

        Raises:
            NotFound: there is none, or its bytes are gone.
        """
        file = self.get(file_id)
        try:
            return file, file.path.open("rb")
        except FileNotFoundError:
            raise NotFound(f"The bytes of {file_id} are gone; delete it, and upload it again") from None

    def list(
        self, purpose: str | None = None, after: str | None = None, limit: int = 10_000, *, descending: bool = True
    ) -> list[StoredFile]:
        """At most `limit` files, by creation time, that follow the one with the id `after`.

        Raises:
            InvalidRequest: there is no such file.
        """
        statement = select(FileRow).where(or_(FileRow.expires_at.is_(None), FileRow.expires_at > time.time()))
        if purpose is not None:
            statement = statement.where(FileRow.purpose == purpose)
        keys = (FileRow.created_at, FileRow.id)
        with Session(self._engine) as session:
            statement = following(session, statement, FileRow, keys, after, descending=descending)
            return [self._file(row) for row in session.scalars(statement.limit(limit))]

    def delete_expired(self, needed: Callable[[str], bool]) -> None:
        """Delete expired files, except those that are still `needed`; called regularly."""
        with Session(self._engine) as session:
            expired = session.scalars(select(FileRow.id).where(FileRow.expires_at <= time.time())).all()
        for file_id in expired:
            if not needed(file_id):
                self._forget(file_id)

    def delete(self, file_id: str) -> None:
        """Delete the file and its bytes.

        Raises:
            NotFound: there is none of that id, or another request was faster.
        """
        if not self._forget(self.get(file_id).id):
            raise _no_such(file_id)

    def _forget(self, file_id: str) -> bool:
        """Delete row and bytes; False: the row was gone."""
        with Session(self._engine) as session, session.begin():
            found = session.scalar(delete(FileRow).where(FileRow.id == file_id).returning(FileRow.id))
        (self._root / file_id).unlink(missing_ok=True)
        return found is not None

    def check_room(self, size: int, *, result: bool = False) -> None:
        """Refuse what finds no room for so many more bytes.

        Args:
            result: they will be a result's, which `max_files` does not count.

        Raises:
            TooLarge: there is not.
        """
        if size > self._room(result=result):
            raise self._full()

    def _full(self) -> TooLarge:
        return TooLarge(
            f"the files that are kept may have {self._max_stored_bytes} bytes in all (max_stored_bytes); delete what "
            "is no longer needed"
        )

    def _room(self, *, result: bool = False) -> int:
        """How many bytes another file may have.

        Raises:
            TooLarge: the limit on the number of files is reached.
        """
        uploaded = func.count().filter(FileRow.purpose.not_in(RESULTS))
        with Session(self._engine) as session:
            counted = session.execute(select(uploaded, func.coalesce(func.sum(FileRow.bytes), 0))).one()
        files, stored = int(counted[0]), int(counted[1])
        if not result and self._max_files is not None and files >= self._max_files:
            raise TooLarge(f"{files} files are kept (max_files); delete what is no longer needed")
        return sys.maxsize if self._max_stored_bytes is None else self._max_stored_bytes - stored

    def _file(self, row: FileRow) -> StoredFile:
        return StoredFile(
            row.id, row.filename, row.purpose, row.bytes, row.created_at, row.expires_at, self._root / row.id
        )


def check_name(filename: str, purpose: str, param: str) -> None:
    """Refuse a name that does not fit the purpose, before the bytes are read.

    Raises:
        InvalidRequest: training data without a .jsonl name.
    """
    if purpose == "fine-tune" and not filename.lower().endswith(".jsonl"):
        raise InvalidRequest(f"{filename[:100]!r} is no JSONL file; training data must be named *.jsonl", param)


def _expired(row: FileRow) -> bool:
    return row.expires_at is not None and row.expires_at <= time.time()


def _no_such(file_id: str) -> NotFound:
    return NotFound(f"No such File object: {file_id}")
