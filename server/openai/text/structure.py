"""`response_format`: what an answer must look like, and what the model is told of it."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

BEST_EFFORT = "Answer with a JSON object that follows this JSON schema:\n"


class Text(BaseModel):
    """Any text."""

    type: Literal["text"]


class JsonObject(BaseModel):
    """Some JSON object."""

    type: Literal["json_object"]


class Schema(BaseModel):
    """A named JSON schema; `strict` holds the answer to it."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    value: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class JsonSchema(BaseModel):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: Schema


Format = Annotated[Text | JsonObject | JsonSchema, Field(discriminator="type")]


def structure(wanted: Format | None) -> dict[str, Any] | None:
    """What the engine holds the answer to; see `Sampling.structure`. A schema that is not strict: to be JSON."""
    if isinstance(wanted, JsonSchema) and wanted.json_schema.strict:
        return {"json": wanted.json_schema.value}
    return None if wanted is None or isinstance(wanted, Text) else {"json_object": True}


def instruction(wanted: Format | None) -> str | None:
    """What the model is told of the schema: also where it is held to it, it answers better when it knows."""
    if isinstance(wanted, JsonSchema) and wanted.json_schema.value:
        return BEST_EFFORT + json.dumps(wanted.json_schema.value, ensure_ascii=False)
    return None
