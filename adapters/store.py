"""Immutable, content-addressed store: the sha256 of an adapter's files is its path.

So a prefix cache keyed by path is never stale, equal weights under two names are stored once, and damage on disk is
found before the engine reads it. A crash leaves an adapter whole or absent: files are staged, synced, and put in place
by one rename. A mark under `.unsettled/` names a digest whose files and registry entry may not agree yet.
"""

import contextlib
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from adapters import manifest
from adapters.errors import AdapterDamaged, InvalidAdapter
from adapters.files import full, validate

FILES = (validate.CONFIG, validate.WEIGHTS, full.CONFIG, full.WEIGHTS, manifest.FILENAME)
TAKEN = (*FILES, *validate.PICKLES)  # the only files that are looked at; a trainer may leave others
_CHUNK_BYTES = 1 << 20
_Signature = tuple[tuple[str, int, int, int, int], ...]


def taken_files(folder: Path) -> tuple[str, ...]:
    """The names of the files to take from a folder: an adapter's, else a full model's.

    If an adapter lies there, a model beside it (the base's config.json, merged weights) is ignored.
    """
    if (folder / validate.CONFIG).exists():
        return (validate.CONFIG, validate.WEIGHTS, manifest.FILENAME)
    return FILES


class Store:
    """Adapters on local disk under `root`: `root/<digest>/`, work in progress under `root/.staging/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging = root / ".staging"
        self._unsettled = root / ".unsettled"
        shutil.rmtree(self._staging, ignore_errors=True)  # left by a crash: one server owns a data folder
        self._staging.mkdir(parents=True)
        self._unsettled.mkdir(exist_ok=True)
        self._verified: dict[str, _Signature] = {}

    def path(self, digest: str) -> Path:
        """Folder of the adapter with this digest; absolute."""
        return self.root.absolute() / digest

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder on the store's file system; deleted after the block, unless `publish` moved it into place."""
        directory = Path(tempfile.mkdtemp(dir=self._staging))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def copy_in(
        self, source: Path, staged: Path, max_bytes: int, max_full_bytes: int, within: Sequence[Path] = ()
    ) -> None:
        """Copy an adapter's files from `source`; only the copy is validated, since the source may change meanwhile.

        Args:
            max_bytes: largest file; `max_full_bytes`: largest file of full weights.
            within: folders into which links may lead; in a Hugging Face cache, every file of a snapshot is a link.

        Raises:
            InvalidAdapter: a file is a link that leads elsewhere, no regular file, too large or not readable, or
                `source` is no folder.
        """
        try:
            if not source.is_dir():
                raise InvalidAdapter(source.name, "is not a folder on the server")
            names = taken_files(source)
        except OSError as error:  # a name too long for the file system, no permission
            raise InvalidAdapter(source.name, f"cannot be read: {error.strerror}") from error
        if not any((source / name).is_file() for name in (validate.CONFIG, full.CONFIG)):
            inside = sorted(path.parent.name for path in itertools.islice(source.glob(f"*/{validate.CONFIG}"), 5))
            if inside:
                raise InvalidAdapter(validate.CONFIG, f"is missing; name one of its folders: {', '.join(inside)}")
        for name in (*names, *validate.PICKLES):
            file = source / name
            if file.is_symlink():
                file = _followed(file, within)
            if file.exists() and not file.is_file():
                raise InvalidAdapter(name, "is no regular file; expected the file itself (cp -L)")
            if not file.exists():
                continue
            limit = max_full_bytes if name == full.WEIGHTS else max_bytes
            if file.stat().st_size > limit:
                raise InvalidAdapter(name, f"has {file.stat().st_size} bytes; at most {limit} are allowed")
            if name in validate.PICKLES:
                if not (staged / validate.WEIGHTS).exists():
                    (staged / name).touch()  # empty: validation only needs to see that it is there
                continue
            try:
                stream = open(file, "rb", opener=_without_following)  # noqa: SIM115 (closed below)
            except OSError as error:
                raise InvalidAdapter(name, f"cannot be read: {error.strerror}") from error
            with stream, (staged / name).open("wb") as target:
                shutil.copyfileobj(stream, target, _CHUNK_BYTES)

    def seal(self, staged: Path) -> str:
        """Sync a validated folder's files to disk and make them read-only; return their digest."""
        for name in FILES:
            if (staged / name).is_file():
                sync(staged / name)
                (staged / name).chmod(0o444)
        return _digest(staged)

    def publish(self, staged: Path, digest: str) -> None:
        """Move a sealed folder into its place; if one is there already, it is kept if whole, else replaced."""
        target = self.path(digest)
        if target.exists() and not self._is_whole(digest):
            target.rename(self._staging / f"damaged-{os.urandom(8).hex()}")
        if not target.exists():
            staged.chmod(0o755)
            staged.rename(target)
            sync(self.root)
            self._verified[digest] = _signature(target)  # `seal` has just hashed it

    def verify(self, digest: str) -> None:
        """Read an adapter's files, and so bring them into the page cache.

        They are hashed the first time, and again if their sizes or times on disk have changed.

        Raises:
            AdapterDamaged: the files are missing or changed.
        """
        with contextlib.suppress(OSError):
            if self._verified.get(digest) == _signature(self.path(digest)):
                for name in FILES:
                    _read(self.path(digest) / name)
                return
        if not self._is_whole(digest):
            raise AdapterDamaged(
                f"the stored files of adapter {digest[:12]} are gone or changed; register the same adapter again"
            )

    def remove(self, digest: str) -> None:
        """Delete an adapter's files; the caller knows that no name and no request needs them."""
        shutil.rmtree(self.path(digest), ignore_errors=True)
        self._verified.pop(digest, None)

    def unsettle(self, digest: str) -> None:
        """Mark that files and registry may disagree from now on, until `settle`."""
        (self._unsettled / digest).touch()
        sync(self._unsettled)

    def settle(self, digest: str) -> None:
        """Remove the mark: files and registry agree again."""
        (self._unsettled / digest).unlink(missing_ok=True)

    def unsettled(self) -> list[str]:
        """Digests for which a crash may have left the files without a name."""
        return sorted(mark.name for mark in self._unsettled.iterdir())

    def _is_whole(self, digest: str) -> bool:
        try:
            signature = _signature(self.path(digest))
            whole = _digest(self.path(digest)) == digest
        except OSError:
            return False
        if whole:
            self._verified[digest] = signature
        return whole


def _followed(link: Path, within: Sequence[Path]) -> Path:
    """The file that a link leads to.

    Raises:
        InvalidAdapter: it leads nowhere, or out of the folders `within`.
    """
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # it leads nowhere, or in a loop
        raise InvalidAdapter(link.name, "is a link that ends nowhere; expected the file itself (cp -L)") from error
    if not any(target.is_relative_to(folder.resolve()) for folder in within):
        raise InvalidAdapter(
            link.name, "is a link that leads out of the allowed folders; expected the file itself (cp -L)"
        )
    return target


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _signature(folder: Path) -> _Signature:
    """Name, inode, size and times of each file; any write changes them."""
    found = [(name, (folder / name).stat()) for name in FILES if (folder / name).is_file()]
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in found)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in FILES:
        if (folder / name).is_file():
            digest.update(f"{name}\0{(folder / name).stat().st_size}\0".encode())
            _read(folder / name, digest.update)
    return digest.hexdigest()


def _read(file: Path, take: Callable[[memoryview], object] = lambda chunk: None) -> None:
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    if file.is_file():
        with file.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                take(buffer[:count])


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
