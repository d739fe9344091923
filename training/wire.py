"""What a description from outside is read with: null means absent, as everywhere in OpenAI's API; no key is dropped."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

FUNCTION_NAME = r"^[a-zA-Z0-9_-]{1,64}$"  # OpenAI's
MAX_TEXT_CHARACTERS = 100_000  # of one field; a description is in every list and in every job's record

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]


def without_nulls(value: Any) -> Any:
    """An object without the keys that are null; anything else as it is."""
    return {key: one for key, one in value.items() if one is not None} if isinstance(value, dict) else value


class WithoutNulls(BaseModel):
    """Base of objects in which a key without a value is as good as none."""

    @model_validator(mode="before")
    @classmethod
    def _null_means_absent(cls, value: Any) -> Any:
        return without_nulls(value)


class Description(WithoutNulls):
    """Base of descriptions: an unknown key is refused."""

    model_config = ConfigDict(extra="forbid")
