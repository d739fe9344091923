"""`/v1/uploads`: large files in parts; create, add parts, complete, cancel."""

from typing import Annotated, Any

from fastapi import APIRouter, File, UploadFile
from pydantic import Field

from server.http.forms import OnlyOnce
from server.openai.files import Purpose, wire
from server.openai.wire import ExpiresAfter, FileName
from server.services import Parts
from server.state.uploads import Upload
from training.wire import Description

router = APIRouter(prefix="/v1/uploads")


class UploadRequest(Description):
    """A request for an upload."""

    bytes: Annotated[int, Field(ge=1)]
    filename: FileName
    mime_type: str
    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class CompleteRequest(Description):
    """The upload's parts in order, and the MD5 of the whole."""

    part_ids: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    md5: str | None = None


@router.post("")
def create(body: UploadRequest, parts: Parts) -> dict[str, Any]:
    """Begin an upload; it expires after an hour."""
    lifetime = body.expires_after.seconds if body.expires_after else None
    return _wire(parts.uploads.create(body.filename, body.purpose, body.bytes, lifetime))


@router.post("/{upload_id}/parts", dependencies=[OnlyOnce])
def add_part(upload_id: str, parts: Parts, data: Annotated[UploadFile, File()]) -> dict[str, Any]:
    """Add a part of 64 MB at most; parts may come in any order and at the same time."""
    part = parts.uploads.add(upload_id, data.file)
    return {"id": part.id, "object": "upload.part", "created_at": part.created_at, "upload_id": part.upload_id}


@router.post("/{upload_id}/complete")
def complete(upload_id: str, body: CompleteRequest, parts: Parts) -> dict[str, Any]:
    """Join the parts to a file."""
    return _wire(parts.uploads.complete(upload_id, body.part_ids, body.md5))


@router.post("/{upload_id}/cancel")
def cancel(upload_id: str, parts: Parts) -> dict[str, Any]:
    """Cancel the upload, and delete its parts."""
    return _wire(parts.uploads.cancel(upload_id))


def _wire(upload: Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": upload.created_at,
        "expires_at": upload.expires_at,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
        "file": wire(upload.file) if upload.file else None,
    }
