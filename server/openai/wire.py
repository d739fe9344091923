"""Shared by the platform's requests: metadata labels, expiry, names; null means absent, unknown fields are refused."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticKnownError

from training.wire import Description, without_nulls

MAX_NAME_CHARACTERS = 512  # of a file's name; OpenAI documents no limit

MAX_LABELS = 16


def _few(value: Any) -> Any:
    """The labels without nulls; too many are refused here, as pydantic would check each of a million first."""
    kept = without_nulls(value)
    if isinstance(kept, dict) and len(kept) > MAX_LABELS:
        shown = {"field_type": "Dictionary", "max_length": MAX_LABELS, "actual_length": len(kept)}
        raise PydanticKnownError("too_long", shown)
    return kept


Label = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[Annotated[str, Field(max_length=64)], Label], BeforeValidator(_few)]
FileName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]
Seconds = Annotated[int, Field(ge=3600, le=2_592_000)]


class ExpiresAfter(Description):
    """When a file expires: so many seconds after its creation."""

    anchor: Literal["created_at"]
    seconds: Seconds
