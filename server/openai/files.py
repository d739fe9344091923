"""`/v1/files`: create, list, retrieve, content, delete."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, UploadFile
from fastapi.responses import FileResponse

from server.http.auth import Caller
from server.openai.lists import After, Limit, page
from server.services import Use
from server.state.errors import InvalidState
from server.state.files import StoredFile

router = APIRouter(prefix="/v1/files")

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]


@router.post("")
def create(
    use: Use, caller: Caller, file: Annotated[UploadFile, File()], purpose: Annotated[Purpose, Form()]
) -> dict[str, Any]:
    """Upload a file."""
    return _wire(use.files.create(file.file, file.filename or "file", purpose))


@router.get("")
def list_files(
    use: Use, caller: Caller, purpose: str | None = None, after: After = None, limit: Limit = 100
) -> dict[str, Any]:
    """All files, newest first."""
    return page([_wire(file) for file in use.files.list(purpose)], after, limit)


@router.get("/{file_id}")
def retrieve(file_id: str, use: Use, caller: Caller) -> dict[str, Any]:
    """One file's description."""
    return _wire(use.files.get(file_id))


@router.get("/{file_id}/content")
def content(file_id: str, use: Use, caller: Caller) -> FileResponse:
    """One file's bytes."""
    file = use.files.get(file_id)
    return FileResponse(file.path, media_type="application/octet-stream", filename=file.filename)


@router.delete("/{file_id}")
def delete(file_id: str, use: Use, caller: Caller) -> dict[str, Any]:
    """Delete a file that no waiting or running job needs."""
    if use.jobs.uses_file(file_id):
        raise InvalidState(f"{file_id} is needed by a job that has not ended; cancel the job first", "file_id")
    use.files.delete(file_id)
    return {"id": file_id, "object": "file", "deleted": True}


def _wire(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
        "expires_at": None,
    }
