"""`/admin/adapters`: register adapters by path or upload, see their state, load, unload, pin and remove them."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from adapters.errors import InvalidAdapter
from adapters.files import full
from adapters.files.validate import CONFIG
from adapters.registry import Adapter, Alias
from adapters.store import TAKEN
from server.services import Parts, Services
from training.wire import Description

router = APIRouter(prefix="/admin/adapters")

UPLOAD = "upload-"  # prefix of temporary folders for a request's files, in the data folder
MAX_PARTS = 200  # of a form; a trainer leaves about 15 files in a folder


class AdapterRequest(Description):
    """An adapter in a folder on the server."""

    name: str
    path: str


@router.post("")
async def register(request: Request, parts: Parts) -> dict[str, Any]:
    """Register an adapter: JSON `{"name", "path"}` with a path under an allowed folder, or a multipart upload.

    The upload has a field `name` and the files of PEFT's save_pretrained: `adapter_config.json`,
    `adapter_model.safetensors`, and `manifest.json` if there is one. Other files are
    ignored, in a folder too. The adapter is loaded on its first request.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await _register_upload(request, parts)
    try:
        body = AdapterRequest.model_validate_json(await request.body())
    except ValidationError as error:
        raise RequestValidationError([{**e, "loc": ("body", *e["loc"])} for e in error.errors()]) from error
    return await _register_folder(parts, body.name, body.path)


@router.get("")
def list_adapters(parts: Parts) -> dict[str, Any]:
    """All adapters, oldest first, with their state: registered, loading, ready or failed."""
    aliases = parts.catalog.registry.aliases()
    return {"object": "list", "data": [_wire(adapter, aliases, parts) for adapter in parts.catalog.registry.list()]}


@router.get("/{name:path}")
def retrieve(name: str, parts: Parts) -> dict[str, Any]:
    """One adapter, with its state."""
    return _wire(parts.catalog.registry.get(name), parts.catalog.registry.aliases(), parts)


@router.post("/{name:path}/load")
async def load(name: str, parts: Parts) -> dict[str, Any]:
    """Load an adapter before its first request; answers when it is ready."""
    return await _answer(await parts.catalog.load(name), parts)


@router.post("/{name:path}/unload")
async def unload(name: str, parts: Parts) -> dict[str, Any]:
    """Free an adapter's memory once its running requests have ended; the next request loads it again."""
    return await _answer(await parts.catalog.unload(name), parts)


@router.post("/{name:path}/pin")
async def pin(name: str, parts: Parts) -> dict[str, Any]:
    """Load an adapter and keep it in memory, also after a restart; `max_cpu_loras - max_loras` at most."""
    return await _answer(await parts.catalog.pin(name), parts)


@router.post("/{name:path}/unpin")
async def unpin(name: str, parts: Parts) -> dict[str, Any]:
    """Let an adapter be evicted again."""
    return await _answer(await parts.catalog.unpin(name), parts)


@router.delete("/{name:path}")
async def remove(name: str, parts: Parts, force: bool = False) -> dict[str, Any]:
    """Remove an adapter once its requests have ended; refused while an alias points at it, unless `?force=true`."""
    await parts.catalog.remove(name, force=force)
    return {"id": name, "object": "adapter", "deleted": True}


async def _register_upload(request: Request, parts: Services) -> dict[str, Any]:
    try:
        form = await request.form(max_files=MAX_PARTS, max_fields=MAX_PARTS)
    except UnicodeError as error:  # the text is not in the charset that the content type names
        raise HTTPException(400, f"The form's text cannot be read: {error}") from error
    try:
        name, path, files = _field(form, "name"), _field(form, "path"), _files(form)
        if name is None:
            raise RequestValidationError([{"type": "missing", "loc": ("body", "name"), "msg": "Field required"}])
        if not files and path is None:
            raise InvalidAdapter(CONFIG, "is missing; send the files that PEFT's save_pretrained wrote, unpacked")
        if path is not None:
            if files:
                raise InvalidAdapter("path", f"was sent beside {', '.join(files)}; send one of them")
            return await _register_folder(parts, name, path)
        with tempfile.TemporaryDirectory(prefix=UPLOAD, dir=parts.settings.data_dir) as folder:
            for file, part in files.items():
                await anyio.to_thread.run_sync(_save, part, Path(folder) / file)
            return await _register(parts, name, Path(folder))
    finally:
        await form.close()


def _field(form: FormData, name: str) -> str | None:
    """A text field of the form.

    Raises:
        RequestValidationError: it was sent several times with different values.
    """
    values = {value for value in form.getlist(name) if isinstance(value, str)}
    if len(values) > 1:
        found = f"was sent {len(values)} times with different values; send it once"
        raise RequestValidationError([{"type": "value_error", "loc": ("body", name), "msg": found}])
    return next(iter(values), None)


def _files(form: FormData) -> dict[str, UploadFile]:
    """The adapter's files among the form's parts, by their names in PEFT's folder.

    A client that sends a whole tree puts folders into the names: the topmost folder with a config counts. If a file has
    no name of its own (a browser's Blob), the field's name counts.

    Raises:
        InvalidAdapter: a file was sent twice or as text, or there is no config.
    """
    folders: dict[tuple[str, ...], dict[str, UploadFile]] = {}
    for field, part in form.multi_items():
        if not isinstance(part, UploadFile):
            if field in TAKEN:
                raise InvalidAdapter(
                    field, f"was sent as text, without a file name; send it as a file (curl: -F file=@{field})"
                )
            continue
        *folder, name = (part.filename or "").replace("\\", "/").split("/")
        if name not in TAKEN:
            folder, name = [], field
        if name in TAKEN and folders.setdefault(tuple(folder), {}).setdefault(name, part) is not part:
            raise InvalidAdapter(name, "was sent twice; send one adapter at a time")
    found = sorted((folder for folder, files in folders.items() if {CONFIG, full.CONFIG} & files.keys()), key=len)
    if len(found) > 1 and len(found[0]) == len(found[1]):
        both = " and ".join("/".join(folder) for folder in found[:2])
        raise InvalidAdapter(CONFIG, f"was sent of two folders, {both}; send one adapter at a time")
    if not found and folders:
        sent = ", ".join(sorted(name for files in folders.values() for name in files))
        raise InvalidAdapter(CONFIG, f"is missing beside {sent}; send the files that PEFT's save_pretrained wrote")
    return folders[found[0]] if found else {}


def _save(part: UploadFile, target: Path) -> None:
    with target.open("wb") as stream:
        shutil.copyfileobj(part.file, stream)


async def _register_folder(parts: Services, name: str, path: str) -> dict[str, Any]:
    roots = parts.settings.adapter_root
    return await _register(parts, name, _allowed(path, roots), roots)


async def _register(parts: Services, name: str, source: Path, within: Sequence[Path] = ()) -> dict[str, Any]:
    adapter = await anyio.to_thread.run_sync(
        parts.catalog.register, name, source, parts.settings.organization, within, limiter=parts.registrations
    )
    return await _answer(adapter, parts)


def _allowed(given: str, roots: list[Path]) -> Path:
    """The folder with every link resolved, if it lies under an allowed one; no file is opened before that is known."""
    try:
        resolved = Path(given).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL
        raise InvalidAdapter("path", f"{given!r} is no path: {error}") from error
    if not Path(given).is_absolute() or not any(resolved.is_relative_to(root.resolve()) for root in roots):
        allowed = ", ".join(map(str, roots)) or "none: start the server with --adapter-root FOLDER, or upload the files"
        raise InvalidAdapter("path", f"{given!r} is not an absolute path under an allowed folder ({allowed})")
    return resolved


async def _answer(adapter: Adapter, parts: Services) -> dict[str, Any]:
    return _wire(adapter, await anyio.to_thread.run_sync(parts.catalog.registry.aliases), parts)


def _wire(adapter: Adapter, aliases: list[Alias], parts: Services) -> dict[str, Any]:
    state, error = parts.catalog.state(adapter)
    return {
        "id": adapter.name,
        "object": "adapter",
        "name": adapter.name,
        "base_model": adapter.base_model,
        "digest": adapter.digest,
        "rank": adapter.rank,
        "bytes": adapter.bytes,
        "created_at": adapter.created_at,
        "owned_by": adapter.owned_by,
        "state": state,
        "error": error,
        "pinned": adapter.pinned,
        "aliases": [alias.name for alias in aliases if adapter.name in alias.weights],
    }
