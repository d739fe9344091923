"""`/admin/keys`: make, list and revoke API keys."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from server.errors import InvalidRequest
from server.services import Parts
from server.state.keys import Key
from training.wire import Description

router = APIRouter(prefix="/admin/keys")


class KeyRequest(Description):
    """A key to make."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    admin: bool = False


@router.post("")
def create(body: KeyRequest, parts: Parts) -> dict[str, Any]:
    """Make a key; its secret is shown in this answer only. Refused by a server that runs without keys."""
    if parts.settings.no_auth:
        raise InvalidRequest(
            "anybody can make requests here now (--no-auth), and a key would outlast that; "
            "make it by `tuneport keys create`, or start the server with keys"
        )
    key, secret = parts.keys.create(body.name, admin=body.admin)
    return {**_wire(key), "secret": secret}


@router.get("")
def list_keys(parts: Parts) -> dict[str, Any]:
    """All keys, without their secrets."""
    return {"object": "list", "data": [_wire(key) for key in parts.keys.list()]}


@router.delete("/{key_id}")
def revoke(key_id: str, parts: Parts) -> dict[str, Any]:
    """Revoke a key; it stops working at once in this server, and within five seconds in other processes."""
    parts.keys.revoke(key_id)
    return {"id": key_id, "object": "key", "deleted": True}


def _wire(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "admin": key.admin,
        "hint": f"...{key.hint}",
        "created_at": key.created_at,
    }
