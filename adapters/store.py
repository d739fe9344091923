"""Immutable, content-addressed store: the sha256 of an adapter's files is its path.

So a prefix cache keyed by path is never stale, the same weights under two names are held once, and a crash leaves
either nothing or the whole: files are staged beside, synced, and appear by one rename.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from adapters import manifest, validate
from adapters.errors import InvalidAdapter

FILES = (validate.CONFIG, validate.WEIGHTS, manifest.FILENAME)
_CHUNK_BYTES = 1 << 20


class Store:
    """Adapters on local disk under `root`: `root/<digest>/`, work in progress under `root/.staging/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging = root / ".staging"
        shutil.rmtree(self._staging, ignore_errors=True)  # what a crash left; one server owns a data folder
        self._staging.mkdir(parents=True)

    def path(self, digest: str) -> Path:
        """Folder of the adapter with this digest; absolute."""
        return self.root.absolute() / digest

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder on the store's file system, gone at the end unless `commit` moved it."""
        directory = Path(tempfile.mkdtemp(dir=self._staging))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def copy_in(self, source: Path, staged: Path, max_bytes: int) -> None:
        """Copy an adapter's files from `source`; validate the copy, for the source may change under our hands.

        Raises:
            InvalidAdapter: a file is a link, no regular file or over `max_bytes`, or `source` is no folder.
        """
        if not source.is_dir():
            raise InvalidAdapter(source.name, "is not a folder on the server")
        for name in (*FILES, *validate.PICKLES):
            file = source / name
            if file.is_symlink() or (file.exists() and not file.is_file()):
                raise InvalidAdapter(name, "is a link or no regular file; expected the file itself")
            if not file.exists():
                continue
            if file.stat().st_size > max_bytes:
                raise InvalidAdapter(name, f"has {file.stat().st_size} bytes; at most {max_bytes} are allowed")
            if name in validate.PICKLES:
                (staged / name).touch()  # enough to be named when the safetensors are missing
            else:
                shutil.copyfile(file, staged / name, follow_symlinks=False)

    def commit(self, staged: Path) -> str:
        """Move a validated folder to its place; return its digest. Committing the same content twice is no error."""
        digest = hashlib.sha256()
        for name in FILES:
            if not (staged / name).is_file():
                continue
            digest.update(f"{name}\0{(staged / name).stat().st_size}\0".encode())
            with (staged / name).open("rb+") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
                os.fsync(stream.fileno())
            (staged / name).chmod(0o444)
        target = self.path(digest.hexdigest())
        if not target.is_dir():
            staged.chmod(0o755)
            with contextlib.suppress(FileExistsError):  # another request committed the same content meanwhile
                staged.rename(target)
            parent = os.open(self.root, os.O_DIRECTORY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)
        return digest.hexdigest()

    def remove(self, digest: str) -> None:
        """Delete an adapter's files; the caller knows that no name and no request needs them."""
        shutil.rmtree(self.path(digest), ignore_errors=True)
