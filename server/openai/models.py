"""`GET /v1/models`, `GET` and `DELETE /v1/models/{id}`: the base and every `ft:` model."""

from typing import Any

from fastapi import APIRouter

from server.generation import InvalidRequest
from server.http.auth import Administrator, Caller
from server.models.catalog import Entry
from server.services import Use

router = APIRouter()


@router.get("/v1/models")
def list_models(use: Use, caller: Caller) -> dict[str, Any]:
    """All models, the base first."""
    return {"object": "list", "data": [_wire(model) for model in use.catalog.list()]}


@router.get("/v1/models/{name:path}")
def retrieve(name: str, use: Use, caller: Caller) -> dict[str, Any]:
    """One model; the SDK sends a name's slashes encoded or not."""
    return _wire(use.catalog.get(name))


@router.delete("/v1/models/{name:path}")
async def delete(name: str, use: Use, administrator: Administrator) -> dict[str, Any]:
    """Delete a fine-tuned model, once its running requests have ended, or an alias."""
    if name == use.catalog.base.name:
        raise InvalidRequest(f"{name} is the base model; only fine-tuned models can be deleted", "model")
    if use.catalog.is_alias(name):
        use.catalog.remove_alias(name)
    else:
        await use.catalog.remove(name)
    return {"id": name, "object": "model", "deleted": True}


def _wire(model: Entry) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.created_at, "owned_by": model.owned_by}
