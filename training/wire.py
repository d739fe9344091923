"""Base classes for incoming JSON: null means absent, as in OpenAI's API; `Description` also refuses unknown keys."""

import re
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema

FUNCTION_NAME = r"^[a-zA-Z0-9_-]{1,64}$"  # OpenAI's rule
MAX_FIELDS = 1000  # of a description, as pydantic makes an error for each unknown one
MAX_TEXT_CHARACTERS = 100_000  # of one field; descriptions are in lists and in every job's record

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]

# Up to the next comma or opening bracket, or the end
_VALUE = re.compile(rb'(?!\Z)(?:[^",\[{]++|"(?:[^"\\]++|\\.)*+"?+)*+(?:[,\[{]|\Z)', re.DOTALL)


def more_values(body: bytes, than: int) -> bool:
    """Whether JSON holds more values, its lists and objects among them; to be asked before it is parsed."""
    # Nearly every body has few commas and brackets, those in its texts among them
    return sum(map(body.count, (b",", b"[", b"{"))) >= than and any(
        True for _ in islice(_VALUE.finditer(body), than, None)
    )


def without_nulls(value: Any) -> Any:
    """An object without keys whose value is null; any other value unchanged."""
    return {key: one for key, one in value.items() if one is not None} if isinstance(value, dict) else value


def _fail_fast(schema: Any) -> None:
    if isinstance(schema, dict):
        if (schema.get("type") == "list" and "items_schema" in schema) or schema.get("type") == "dict":
            schema["fail_fast"] = True
        for part in schema.values():
            _fail_fast(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            _fail_fast(part)


class Outside(BaseModel):
    """Base class for incoming JSON: only the first wrong entry of a list is an error, not each of a million."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic's hook."""
        schema = handler(source)
        _fail_fast(schema)
        return schema


class WithoutNulls(Outside):
    """Base class for objects in which null means absent."""

    @model_validator(mode="before")
    @classmethod
    def _null_means_absent(cls, value: Any) -> Any:
        return without_nulls(value)


class Description(WithoutNulls):
    """Base class for objects that refuse unknown keys."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_FIELDS:
            raise ValueError(f"it has {len(value)} fields; at most {MAX_FIELDS} are read")
        return value
