"""`GET /v1/models`, `GET` and `DELETE /v1/models/{id}`: the base, every `ft:` model, and the embedding model."""

import asyncio
from typing import Any

from fastapi import APIRouter

from server.errors import InvalidRequest
from server.http.identity import ADMINISTRATOR
from server.inference.catalog import Entry
from server.services import Parts, Services

router = APIRouter()


@router.get("/v1/models")
def list_models(parts: Parts) -> dict[str, Any]:
    """All models: the base first, the embedding model last."""
    return {"object": "list", "data": [_wire(model) for model in (*parts.catalog.list(), _embedder(parts))]}


@router.get("/v1/models/{name:path}")
def retrieve(name: str, parts: Parts) -> dict[str, Any]:
    """One model; slashes in its name may be encoded or not."""
    return _wire(_embedder(parts) if name == parts.embedder.name else parts.catalog.get(name))


@router.delete("/v1/models/{name:path}", dependencies=[ADMINISTRATOR])
async def delete(name: str, parts: Parts) -> dict[str, Any]:
    """Delete an alias, or a fine-tuned model once its running requests have ended."""
    if name in (parts.catalog.base.name, parts.embedder.name):
        raise InvalidRequest(f"{name} is the server's own model; only fine-tuned models can be deleted", "model")
    if parts.catalog.is_alias(name):
        await asyncio.to_thread(parts.catalog.remove_alias, name)
    else:
        await parts.catalog.remove(name)
    return {"id": name, "object": "model", "deleted": True}


def _embedder(parts: Services) -> Entry:
    return Entry(parts.embedder.name, parts.catalog.get(parts.catalog.base.name).created_at, "tuneport")


def _wire(model: Entry) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.created_at, "owned_by": model.owned_by}
