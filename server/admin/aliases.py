"""`/admin/adapters/aliases`: names that point at versions; they can be moved, split by weight and rolled back."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BeforeValidator, Field

from adapters.errors import InvalidAlias
from adapters.registry import Alias
from server.services import Parts
from training.wire import Description, without_nulls

router = APIRouter(prefix="/admin/adapters/aliases")


class AliasRequest(Description):
    """Where an alias is to point."""

    weights: Annotated[dict[str, int], BeforeValidator(without_nulls), Field(min_length=1, max_length=100)]


@router.get("")
def list_aliases(parts: Parts) -> dict[str, Any]:
    """All aliases, oldest first."""
    return {"object": "list", "data": [_wire(alias) for alias in parts.catalog.registry.aliases()]}


@router.get("/{name:path}")
def retrieve(name: str, parts: Parts) -> dict[str, Any]:
    """One alias: where it points, and where it pointed before."""
    return _wire(parts.catalog.registry.alias(name))


@router.put("/{name:path}")
def point(name: str, body: AliasRequest, parts: Parts) -> dict[str, Any]:
    """Make or move an alias: `{"weights": {"ft:…:v2": 100}}`. It affects new requests, not running ones.

    Several versions share the traffic by weight, and a request's `user` always gets the same one. For an alias
    `ft:acme`, `v1` is short for `ft:acme:v1`.
    """
    return _wire(parts.catalog.set_alias(name, body.weights, parts.settings.organization))


@router.post("/{name:path}/rollback")
def roll_back(name: str, parts: Parts) -> dict[str, Any]:
    """Point an alias where it pointed before."""
    previous = parts.catalog.registry.alias(name).previous
    if previous is None:
        raise InvalidAlias(f"alias {name!r} has pointed nowhere else")
    return _wire(parts.catalog.set_alias(name, previous, parts.settings.organization))


@router.delete("/{name:path}")
def remove(name: str, parts: Parts) -> dict[str, Any]:
    """Remove an alias; its versions stay."""
    parts.catalog.remove_alias(name)
    return {"id": name, "object": "alias", "deleted": True}


def _wire(alias: Alias) -> dict[str, Any]:
    return {
        "id": alias.name,
        "object": "alias",
        "name": alias.name,
        "weights": alias.weights,
        "previous": alias.previous,
        "created_at": alias.created_at,
        "updated_at": alias.updated_at,
    }
