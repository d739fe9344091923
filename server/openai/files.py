"""`/v1/files`: create, list, retrieve, content, delete; files may expire."""

import os
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from server.errors import InvalidRequest
from server.http.forms import FormRoute, OnlyOnce, file_name
from server.http.pieces import JSONText
from server.openai.lists import After, Known, first
from server.openai.wire import MAX_NAME_CHARACTERS, Seconds
from server.services import Parts
from server.state.files import StoredFile

router = APIRouter(prefix="/v1/files", route_class=FormRoute)

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]


class Download(FileResponse):
    """An open file: it is there when the answer's head goes out, and comes whole though it is deleted meanwhile."""

    def __init__(self, stream: BinaryIO, filename: str) -> None:
        self._stream = stream
        number = stream.fileno()
        super().__init__(
            f"/proc/self/fd/{number}",
            media_type="application/octet-stream",
            filename=filename,
            stat_result=os.fstat(number),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._stream:
            await super().__call__(scope, receive, send)


@router.post("", dependencies=[OnlyOnce])
def create(
    parts: Parts,
    file: Annotated[UploadFile, File()],
    purpose: Annotated[Purpose, Form()],
    anchor: Annotated[Literal["created_at"] | None, Form(alias="expires_after[anchor]")] = None,
    seconds: Annotated[Seconds | None, Form(alias="expires_after[seconds]")] = None,
) -> dict[str, Any]:
    """Upload a file."""
    if (anchor is None) != (seconds is None):
        missing = "expires_after[anchor]" if anchor is None else "expires_after[seconds]"
        raise InvalidRequest(f"expires_after needs anchor and seconds; {missing} is missing", missing)
    name = file_name(file)
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidRequest(f"the name has {len(name)} characters; at most {MAX_NAME_CHARACTERS} are kept", "file")
    return wire(parts.files.create(file.file, name, purpose, expires_after=seconds))


@router.get("", dependencies=[Known])
def list_files(
    parts: Parts,
    purpose: str | None = None,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
) -> JSONText:
    """All files, newest first unless `order` says otherwise."""
    found = parts.files.list(purpose, after, limit + 1, descending=order == "desc")
    return first([wire(file) for file in found], limit)


@router.get("/{file_id}")
def retrieve(file_id: str, parts: Parts) -> dict[str, Any]:
    """One file's description."""
    return wire(parts.files.get(file_id))


@router.get("/{file_id}/content")
def content(file_id: str, parts: Parts) -> Download:
    """One file's bytes."""
    file, stream = parts.files.open(file_id)
    name = file.filename.replace("\\", "/").rpartition("/")[2]  # without the uploader's folders
    return Download(stream, name or file.id)


@router.delete("/{file_id}")
def delete(file_id: str, parts: Parts) -> dict[str, Any]:
    """Delete a file that no waiting or running job or batch needs."""
    if parts.needs_file(file_id):
        raise InvalidRequest(f"{file_id} is needed by a job or batch that has not ended; cancel that first", "file_id")
    parts.files.delete(file_id)
    return {"id": file_id, "object": "file", "deleted": True}


def wire(file: StoredFile) -> dict[str, Any]:
    """A file as OpenAI's object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
        "expires_at": file.expires_at,
    }
