"""`/admin/adapters`: register an adapter trained elsewhere, by path or upload; list and remove."""

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
from adapters.store import FILES
from adapters.validate import PICKLES
from server.catalog import Model
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
    """All adapters, oldest first, with their state."""
    return {"object": "list", "data": [_wire(model, use) for model in use.catalog.list() if model.adapter]}


@router.delete("/{name:path}")
async def remove(name: str, use: Use, administrator: Administrator) -> dict[str, Any]:
    """Remove an adapter; running requests end first."""
    await use.catalog.remove(name)
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
    owner = use.settings.organization
    return _wire(await anyio.to_thread.run_sync(use.catalog.register, name, source, owner), use)


def _allowed(path: Path, roots: list[Path]) -> Path:
    """The folder with every link resolved, if it lies under an allowed one; no other is even looked at."""
    resolved = path.resolve()
    if not path.is_absolute() or not any(resolved.is_relative_to(root.resolve()) for root in roots):
        allowed = ", ".join(map(str, roots)) or "none: start the server with --adapter-root FOLDER, or upload the files"
        raise InvalidAdapter("path", f"{path} is not an absolute path under an allowed folder ({allowed})")
    return resolved


def _wire(model: Model, use: Services) -> dict[str, Any]:
    adapter = model.adapter
    assert adapter is not None
    return {
        "id": model.name,
        "object": "adapter",
        "name": model.name,
        "base_model": adapter.base_model,
        "digest": adapter.digest,
        "rank": adapter.rank,
        "bytes": adapter.bytes,
        "created_at": adapter.created_at,
        "owned_by": adapter.owned_by,
        "state": use.catalog.state(adapter),
    }
