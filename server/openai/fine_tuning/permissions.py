"""`/v1/fine_tuning/checkpoints/{name}/permissions`: which projects may use a checkpoint.

A server has one organisation, whose keys may call every model. So a permission is only a record, kept for clients that
manage permissions; it has no effect on who may call what.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from server.http.identity import ADMINISTRATOR
from server.openai.lists import After, Known, Limit, page
from server.services import Parts
from server.state.permissions import Permission
from training.wire import Description

router = APIRouter(prefix="/v1/fine_tuning/checkpoints", dependencies=[ADMINISTRATOR])


class PermissionRequest(Description):
    """Projects to allow."""

    project_ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]], Field(min_length=1, max_length=100)
    ]


@router.post("/{checkpoint:path}/permissions")
def create(checkpoint: str, body: PermissionRequest, parts: Parts) -> dict[str, Any]:
    """Allow projects; permissions that exist already stay."""
    name = parts.catalog.get(checkpoint).name
    made = [parts.permissions.allow(name, project) for project in dict.fromkeys(body.project_ids)]
    return page([_wire(one) for one in made], None, len(made))


@router.get("/{checkpoint:path}/permissions", dependencies=[Known])
def list_permissions(
    checkpoint: str,
    parts: Parts,
    after: After = None,
    limit: Limit = 10,
    order: Annotated[Literal["ascending", "descending"], Query(description="By time.")] = "descending",
    project_id: str | None = None,
) -> dict[str, Any]:
    """The permissions of a checkpoint."""
    found = parts.permissions.list(parts.catalog.get(checkpoint).name, project_id)
    items = [_wire(one) for one in found]
    return page(items if order == "ascending" else items[::-1], after, limit)


@router.delete("/{checkpoint:path}/permissions/{permission_id}")
def delete(checkpoint: str, permission_id: str, parts: Parts) -> dict[str, Any]:
    """Withdraw a permission."""
    parts.permissions.withdraw(parts.catalog.get(checkpoint).name, permission_id)
    return {"id": permission_id, "object": "checkpoint.permission", "deleted": True}


def _wire(permission: Permission) -> dict[str, Any]:
    return {
        "id": permission.id,
        "object": "checkpoint.permission",
        "created_at": permission.created_at,
        "project_id": permission.project_id,
    }
