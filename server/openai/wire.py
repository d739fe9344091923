"""What the platform's requests have in common: the same labels everywhere, null for absent, no field dropped."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from training.wire import Description, without_nulls

MAX_NAME_CHARACTERS = 512  # of a file; OpenAI names no limit

Label = Annotated[str, Field(max_length=512)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Label], BeforeValidator(without_nulls), Field(max_length=16)
]
FileName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]
Seconds = Annotated[int, Field(ge=3600, le=2_592_000)]


class ExpiresAfter(Description):
    """When a file goes: so many seconds after it came."""

    anchor: Literal["created_at"]
    seconds: Seconds
