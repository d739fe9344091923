"""What the admin API's JSON bodies have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Body(BaseModel):
    """A JSON body: unknown fields are refused, and null means absent, as everywhere in OpenAI's API."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return without_nulls(given)


def without_nulls(given: Any) -> Any:
    """An object without the fields that are null; anything else as it is."""
    return {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else given
