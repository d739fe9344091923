"""OpenAI's lists: `{"object": "list", "data", "has_more"}`; the cursor `after` is the id of the last item seen."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.routing import APIRoute

from server.errors import InvalidRequest

NULL = ("null", "")  # how clients write null; the second is the SDK for Node

After = Annotated[str | None, Query(description="Id of the last item of the page before.")]
Limit = Annotated[int, Query(ge=1, le=100, description="Items a page.")]

SEVERAL = ("include", "include[]")  # parameters that may be repeated


def _only_known(request: Request) -> None:
    """Refuse unknown and repeated filters: a script that relies on them would get items that it did not ask for."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = [parameter.alias for parameter in route.dependant.query_params]
    for name in request.query_params:
        if name not in known and not (name.startswith("metadata[") and "metadata" in known):
            raise InvalidRequest(f"{name[:100]!r} is no parameter of this list; it has {', '.join(known)}", name[:100])
        if name in known and name not in SEVERAL and len(request.query_params.getlist(name)) > 1:
            raise InvalidRequest(f"{name!r} stands there more than once; a list has one", name)


Known = Depends(_only_known)


def labelled(request: Request, metadata: str | None) -> Callable[[Mapping[str, str] | None], bool]:
    """A test whether an item's metadata fit the query: `metadata[k]=v` for each pair, or `metadata=null` for none.

    Raises:
        InvalidRequest: the query is neither, or both.
    """
    wanted = [
        (name.removeprefix("metadata[").removesuffix("]"), value)
        for name, value in request.query_params.multi_items()
        if name.startswith("metadata[")
    ]
    if metadata is None:
        return lambda labels: all((labels or {}).get(key) == value for key, value in wanted)
    if metadata not in NULL or wanted:
        raise InvalidRequest("expected metadata[key]=value, or metadata=null alone for those without", "metadata")
    return lambda labels: not labels


def page(items: Sequence[dict[str, Any]], after: str | None, limit: int) -> dict[str, Any]:
    """The page of `items` after the item with id `after`.

    Raises:
        InvalidRequest: there is no such item.
    """
    start = 0
    if after is not None:
        index = next((index for index, item in enumerate(items) if item["id"] == after), None)
        if index is None:
            raise InvalidRequest(f"no item {after[:100]!r} to go on after", "after")
        start = index + 1
    return first(items[start:], limit)


def first(items: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """The page of the first `limit` items, of which there may be more."""
    data = items[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(items) > limit,
    }
