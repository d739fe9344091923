"""OpenAI's lists: `{"object": "list", "data", "has_more"}` with a cursor, the id of the last item seen."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query

from server.state.errors import InvalidState

After = Annotated[str | None, Query(description="Id of the last item of the page before.")]
Limit = Annotated[int, Query(ge=1, le=100, description="Items a page.")]


def page(items: Sequence[dict[str, Any]], after: str | None, limit: int) -> dict[str, Any]:
    """The page of `items` behind the item with id `after`.

    Raises:
        InvalidState: there is no such item.
    """
    start = 0
    if after is not None:
        index = next((index for index, item in enumerate(items) if item["id"] == after), None)
        if index is None:
            raise InvalidState(f"no item {after!r} to go on after", "after")
        start = index + 1
    data = list(items[start : start + limit])
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": start + limit < len(items),
    }
