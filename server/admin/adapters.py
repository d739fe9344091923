"""`/admin/adapters`: register adapters by path or upload, see their state, load, unload, pin and remove them."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import UploadFile

from adapters.errors import InvalidAdapter
from adapters.files.validate import PICKLES
from adapters.registry import Adapter, Alias
from adapters.store import FILES
from server.http.auth import Administrator
from server.services import Services, Use

router = APIRouter(prefix="/admin/adapters")


class AdapterRequest(BaseModel):
    """An adapter in a folder on the server."""

    model_config = ConfigDict(extra="forbid")

    name: str
    path: str


@router.post("")
async def register(request: Request, use: Use, administrator: Administrator) -> dict[str, Any]:
    """Register an adapter: JSON `{"name", "path"}` with a path under an allowed folder, or a multipart upload.

    The upload has a field `name` and the files of PEFT's save_pretrained: `adapter_config.json`,
    `adapter_model.safetensors`, and `manifest.json` if there is one. The adapter is loaded on its first request.
    """
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await _register_upload(request, use)
    try:
        body = AdapterRequest.model_validate_json(await request.body())
    except ValidationError as error:
        raise RequestValidationError([{**e, "loc": ("body", *e["loc"])} for e in error.errors()]) from error
    source = _allowed(Path(body.path), use.settings.adapter_root)
    return await _register(use, body.name, source)


@router.get("")
def list_adapters(use: Use, administrator: Administrator) -> dict[str, Any]:
    """All adapters, oldest first, with their state: registered, loading, ready or failed."""
    aliases = use.catalog.registry.aliases()
    return {"object": "list", "data": [_wire(adapter, aliases, use) for adapter in use.catalog.registry.list()]}


@router.get("/{name:path}")
def retrieve(name: str, use: Use, administrator: Administrator) -> dict[str, Any]:
    """One adapter, with its state."""
    return _wire(use.catalog.registry.get(name), use.catalog.registry.aliases(), use)


@router.post("/{name:path}/load")
async def load(name: str, use: Use, administrator: Administrator) -> dict[str, Any]:
    """Load an adapter before its first request; answers when it is ready."""
    return await _answer(await use.catalog.load(name), use)


@router.post("/{name:path}/unload")
async def unload(name: str, use: Use, administrator: Administrator) -> dict[str, Any]:
    """Free an adapter's memory once its running requests have ended; the next request loads it again."""
    return await _answer(await use.catalog.unload(name), use)


@router.post("/{name:path}/pin")
async def pin(name: str, use: Use, administrator: Administrator) -> dict[str, Any]:
    """Load an adapter and keep it in memory, also after a restart; `max_cpu_loras - max_loras` at most."""
    return await _answer(await use.catalog.pin(name), use)


@router.post("/{name:path}/unpin")
async def unpin(name: str, use: Use, administrator: Administrator) -> dict[str, Any]:
    """Let an adapter be evicted again."""
    return await _answer(await use.catalog.unpin(name), use)


@router.delete("/{name:path}")
async def remove(name: str, use: Use, administrator: Administrator, force: bool = False) -> dict[str, Any]:
    """Remove an adapter once its requests have ended; refused while an alias points at it, unless `?force=true`."""
    await use.catalog.remove(name, force=force)
    return {"id": name, "object": "adapter", "deleted": True}


async def _register_upload(request: Request, use: Services) -> dict[str, Any]:
    async with request.form(max_files=len(FILES) + len(PICKLES), max_fields=1) as form:
        name = form.get("name")
        if not isinstance(name, str):
            raise RequestValidationError([{"type": "missing", "loc": ("body", "name"), "msg": "Field required"}])
        with tempfile.TemporaryDirectory(prefix="upload-", dir=use.settings.data_dir) as folder:
            for _, part in form.multi_items():
                if isinstance(part, UploadFile):
                    await anyio.to_thread.run_sync(_save, part, Path(folder))
            return await _register(use, name, Path(folder))


def _save(part: UploadFile, folder: Path) -> None:
    if part.filename not in (*FILES, *PICKLES):
        raise InvalidAdapter(str(part.filename), f"is not a file of an adapter; expected {', '.join(FILES)}")
    with (folder / part.filename).open("wb") as target:
        shutil.copyfileobj(part.file, target)


async def _register(use: Services, name: str, source: Path) -> dict[str, Any]:
    adapter = await anyio.to_thread.run_sync(
        use.catalog.register, name, source, use.settings.organization, limiter=use.registrations
    )
    return await _answer(adapter, use)


def _allowed(path: Path, roots: list[Path]) -> Path:
    """The folder with every link resolved, if it lies under an allowed one; no other is even looked at."""
    resolved = path.resolve()
    if not path.is_absolute() or not any(resolved.is_relative_to(root.resolve()) for root in roots):
        allowed = ", ".join(map(str, roots)) or "none: start the server with --adapter-root FOLDER, or upload the files"
        raise InvalidAdapter("path", f"{path} is not an absolute path under an allowed folder ({allowed})")
    return resolved


async def _answer(adapter: Adapter, use: Services) -> dict[str, Any]:
    return _wire(adapter, await anyio.to_thread.run_sync(use.catalog.registry.aliases), use)


def _wire(adapter: Adapter, aliases: list[Alias], use: Services) -> dict[str, Any]:
    state, error = use.catalog.state(adapter)
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
