"""`/v1/batches`: create, retrieve, list, cancel."""

from typing import Any, Literal

from fastapi import APIRouter

from server.errors import InvalidRequest, NotFound
from server.http.pieces import JSONText
from server.openai.lists import After, Known, Limit, first
from server.openai.wire import ExpiresAfter, Metadata
from server.services import Parts
from server.state.batches import BatchRow, BatchStatus
from training.wire import Description

router = APIRouter(prefix="/v1/batches")

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"]


class BatchRequest(Description):
    """A request for a batch."""

    input_file_id: str
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


@router.post("")
def create(body: BatchRequest, parts: Parts) -> dict[str, Any]:
    """Queue a file of requests as a batch."""
    try:
        file = parts.files.get(body.input_file_id)
    except NotFound:
        raise InvalidRequest(f"{body.input_file_id} does not exist", "input_file_id") from None
    if file.purpose != "batch":
        raise InvalidRequest(f"{file.id} has the purpose {file.purpose!r}; expected 'batch'", "input_file_id")
    parts.files.check_room(file.bytes, result=True)  # answers are about as large as what is asked
    lifetime = body.output_expires_after.seconds if body.output_expires_after else None
    row = parts.batches.create(file.id, body.endpoint, body.metadata, lifetime)
    parts.batch_runner.changed()
    return _wire(row)


@router.get("", dependencies=[Known])
def list_batches(parts: Parts, after: After = None, limit: Limit = 20) -> JSONText:
    """All batches, newest first."""
    return first([_wire(row) for row in parts.batches.list(after, limit + 1)], limit)


@router.get("/{batch_id}")
def retrieve(batch_id: str, parts: Parts) -> dict[str, Any]:
    """One batch."""
    return _wire(parts.batches.get(batch_id))


@router.post("/{batch_id}/cancel")
def cancel(batch_id: str, parts: Parts) -> dict[str, Any]:
    """End a batch with the answers that it has so far."""
    return _wire(parts.batches.cancel(batch_id))


def _wire(row: BatchRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "batch",
        "endpoint": row.endpoint,
        "model": None,
        "errors": {"object": "list", "data": row.errors} if row.errors else None,
        "input_file_id": row.input_file,
        "completion_window": "24h",
        "status": row.status,
        "output_file_id": row.output_file,
        "error_file_id": row.error_file,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        **{f"{status}_at": row.times.get(f"{status}_at") for status in BatchStatus if status != BatchStatus.VALIDATING},
        "request_counts": {"total": row.total, "completed": row.completed, "failed": row.failed},
        "usage": None,
        "metadata": row.labels,
    }
