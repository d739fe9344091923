"""Uploads in parts: each part a file of its own until the upload is completed into one, cancelled, or expires."""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from sqlalchemy import BigInteger, Engine, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from server.errors import InvalidRequest, NotFound, TooLarge
from server.state.files import Files, Readable, StoredFile, check_name
from server.state.ids import random_id
from server.state.tables import Base, Written

LIFETIME_SECONDS = 3600  # as at OpenAI
MAX_PART_BYTES = 64 * 1024**2  # OpenAI's limit
MAX_PARTS = 10_000  # as many as can be named when it is completed
PART = re.compile(r"part_[A-Za-z0-9]{1,64}")
_CHUNK_BYTES = 1 << 20


class UploadRow(Base):
    """A file that comes in parts, which lie in the data folder under the upload's id until it is completed."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(Written(64), primary_key=True)
    filename: Mapped[str] = mapped_column(Written())
    purpose: Mapped[str] = mapped_column(Written(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(Written(16))
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    file_expires_after: Mapped[int | None] = mapped_column(BigInteger)
    file_id: Mapped[str | None] = mapped_column(Written(64))


@dataclass(frozen=True)
class Upload:
    """An upload: times in Unix seconds; `status` pending, completed, cancelled or expired; `file` once completed.

    `file_expires_after` is the file's lifetime in seconds; None: it stays.
    """

    id: str
    filename: str
    purpose: str
    bytes: int
    status: str
    created_at: int
    expires_at: int
    file_expires_after: int | None
    file: StoredFile | None


@dataclass(frozen=True)
class Part:
    """A part that was stored."""

    id: str
    upload_id: str
    created_at: int


class Uploads:
    """Uploads in the database, their parts under `root/<upload>/<part>`."""

    def __init__(
        self, engine: Engine, root: Path, files: Files, max_bytes: int, *, max_open: int | None = None
    ) -> None:
        self._engine = engine
        self._root = root
        self._files = files
        self._max_bytes = max_bytes
        self._max_open = max_open
        self._ending: set[str] = set()
        self._lock = Lock()
        root.mkdir(parents=True, exist_ok=True)

    def create(self, filename: str, purpose: str, size: int, expires_after: int | None) -> Upload:
        """Begin an upload of `size` bytes.

        Raises:
            TooLarge: over the limit of a file, of open uploads, or of all files together.
            InvalidRequest: training data without a .jsonl name.
        """
        check_name(filename, purpose, "filename")
        if size > self._max_bytes:
            raise TooLarge(f"bytes is {size}; at most {self._max_bytes} are allowed (max_file_bytes)")
        now = int(time.time())
        row = UploadRow(
            id=random_id("upload_"),
            filename=filename,
            purpose=purpose,
            bytes=size,
            status="pending",
            created_at=now,
            expires_at=now + LIFETIME_SECONDS,
            file_expires_after=expires_after,
        )
        with self._lock:
            under_way, announced = self._under_way(now)
            if self._max_open is not None and under_way >= self._max_open:
                raise TooLarge(f"{self._max_open} uploads are under way (max_open_uploads); complete or cancel one")
            self._files.check_room(size + announced)
            (self._root / row.id).mkdir()
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                session.add(row)
        return self._upload(row)

    def _under_way(self, now: int) -> tuple[int, int]:
        """How many uploads are open, and how many bytes they announced."""
        wanted = select(func.count(), func.coalesce(func.sum(UploadRow.bytes), 0))
        with Session(self._engine) as session:
            found = session.execute(wanted.where(UploadRow.status == "pending", UploadRow.expires_at > now)).one()
        return int(found[0]), int(found[1])

    def add(self, upload_id: str, data: Readable) -> Part:
        """Store a part, whole or not at all.

        Raises:
            NotFound: there is no such upload.
            InvalidRequest: it is not pending.
            TooLarge: the part is over 64 MB, or all parts have more bytes than the upload announced.
        """
        try:
            return self._add(upload_id, data)
        except FileNotFoundError:
            self._pending(upload_id)  # no longer, if another request has ended it meanwhile
            raise

    def _add(self, upload_id: str, data: Readable) -> Part:
        row = self._pending(upload_id)
        folder = self._root / upload_id
        part_id = random_id("part_")
        partial = folder / f".{part_id}"
        try:
            sizes = [part.stat().st_size for part in folder.glob("part_*")]
            if len(sizes) >= MAX_PARTS:
                raise TooLarge(f"the upload has {MAX_PARTS} parts; send larger ones")
            room = row.bytes - sum(sizes)
            with partial.open("wb") as stream:
                while chunk := data.read(_CHUNK_BYTES):
                    stream.write(chunk)
                    if stream.tell() > min(room, MAX_PART_BYTES):
                        raise TooLarge(
                            f"the part is larger than {min(room, MAX_PART_BYTES)} bytes, what is left of its upload"
                        )
                if not stream.tell():
                    raise InvalidRequest("the part is empty", "data")
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(folder / part_id)
        finally:
            partial.unlink(missing_ok=True)
        return Part(part_id, upload_id, int(time.time()))

    def complete(self, upload_id: str, part_ids: Sequence[str], md5: str | None) -> Upload:
        """Join the parts in that order to a file.

        Raises:
            NotFound: there is no such upload.
            InvalidRequest: it is not pending, a part belongs to another upload, or size or MD5 differ.
        """
        with self._alone(upload_id):
            return self._complete(upload_id, part_ids, md5)

    def _complete(self, upload_id: str, part_ids: Sequence[str], md5: str | None) -> Upload:
        row = self._pending(upload_id)
        folder = self._root / upload_id
        paths = [folder / part_id for part_id in part_ids]
        for part_id, path in zip(part_ids, paths, strict=True):
            if not PART.fullmatch(part_id) or not path.is_file():
                raise InvalidRequest(f"{part_id[:100]!r} is no part of {upload_id}", "part_ids")
        size = sum(path.stat().st_size for path in paths)
        if size != row.bytes:
            raise InvalidRequest(f"the parts have {size} bytes; {row.bytes} were announced", "part_ids")
        if md5 is not None and md5 != _md5(paths):
            raise InvalidRequest("the parts have another MD5 sum", "md5")
        with _Chain(paths) as whole:
            file = self._files.create(
                whole,
                row.filename,
                row.purpose,
                file_id=f"file-{upload_id.removeprefix('upload_')}",
                expires_after=row.file_expires_after,
            )
        self._settle(upload_id, "completed", file.id)
        return self.get(upload_id)

    def cancel(self, upload_id: str) -> Upload:
        """Cancel an upload.

        Raises:
            NotFound: there is no such upload.
            InvalidRequest: it is not pending.
        """
        with self._alone(upload_id):
            self._pending(upload_id)
            self._settle(upload_id, "cancelled", None)
        return self.get(upload_id)

    def get(self, upload_id: str) -> Upload:
        """The upload of that id.

        Raises:
            NotFound: there is none.
        """
        with Session(self._engine) as session:
            row = session.get(UploadRow, upload_id)
            if row is None:
                raise NotFound(f"No such Upload object: {upload_id}")
            return self._upload(row)

    def delete_expired(self) -> None:
        """Give up uploads begun an hour ago and never completed; delete parts and rows of those that have ended."""
        for folder in self._root.iterdir():
            try:
                expired = self.get(folder.name).status != "pending"
            except NotFound:  # a crash before the row was written
                expired = time.time() - folder.stat().st_mtime > LIFETIME_SECONDS
            if expired:
                self._settle(folder.name, "expired", None)
        ended = delete(UploadRow).where(UploadRow.status != "pending", UploadRow.expires_at < time.time())
        with Session(self._engine) as session, session.begin():
            session.execute(ended)

    @contextmanager
    def _alone(self, upload_id: str) -> Iterator[None]:
        """Complete or cancel an upload, one request at a time, since two would write the same file.

        Raises:
            InvalidRequest: another request is doing so.
        """
        with self._lock:
            if upload_id in self._ending:
                raise InvalidRequest(f"{upload_id} is being completed or cancelled by another request", "upload_id")
            self._ending.add(upload_id)
        try:
            yield
        finally:
            self._ending.discard(upload_id)

    def _pending(self, upload_id: str) -> Upload:
        upload = self.get(upload_id)
        if upload.status != "pending":
            raise InvalidRequest(f"{upload_id} is {upload.status}; only a pending upload can be changed", "upload_id")
        return upload

    def _settle(self, upload_id: str, status: str, file_id: str | None) -> None:
        statement = update(UploadRow).where(UploadRow.id == upload_id, UploadRow.status == "pending")
        with Session(self._engine) as session, session.begin():
            session.execute(statement.values(status=status, file_id=file_id))
        shutil.rmtree(self._root / upload_id, ignore_errors=True)

    def _upload(self, row: UploadRow) -> Upload:
        expired = row.status == "pending" and row.expires_at <= time.time()
        return Upload(
            row.id,
            row.filename,
            row.purpose,
            row.bytes,
            "expired" if expired else row.status,
            row.created_at,
            row.expires_at,
            row.file_expires_after,
            self._file(row),
        )

    def _file(self, row: UploadRow) -> StoredFile | None:
        try:
            return self._files.get(row.file_id) if row.file_id else None
        except NotFound:  # deleted since
            return None


class _Chain:
    """Files read as one stream."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._stream = self._paths.pop(0).open("rb") if self._paths else None

    def __enter__(self) -> "_Chain":
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; b"" at the end of the last file."""
        while self._stream is not None:
            if chunk := self._stream.read(size):
                return chunk
            self._stream.close()
            self._stream = self._paths.pop(0).open("rb") if self._paths else None
        return b""


def _md5(paths: Sequence[Path]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with _Chain(paths) as whole:
        while chunk := whole.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
