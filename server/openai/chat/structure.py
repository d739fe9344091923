"""`response_format`: the structure that an answer must have, and the instruction that tells the model so."""

import json
import math
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, ConfigDict, Field

from training.wire import Description, WithoutNulls

BEST_EFFORT = "Answer with a JSON object that follows this JSON schema:\n"
MAX_DEPTH = 64  # vLLM's limit; OpenAI's is 10
MAX_VALUES = 10_000  # OpenAI's limit is 5,000 properties


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [value]
    found = 0
    for _ in range(MAX_DEPTH):
        if any(isinstance(one, float) and not math.isfinite(one) for one in level):
            raise ValueError("it holds a number that JSON has not: NaN, or infinite")
        nested = [one for one in level if isinstance(one, dict | list)]
        found += sum(map(len, nested))
        if found > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES} values")
        level = [inner for one in nested for inner in (one.values() if isinstance(one, dict) else one)]
        if not level:
            return value
    raise ValueError(f"objects and arrays are nested more than {MAX_DEPTH} levels deep")


def _referring(schema: dict[str, Any]) -> dict[str, Any]:
    """Check that each local `$ref` leads to something besides itself; a cycle would end the answer midway."""
    waiting: list[Any] = [schema]
    ending: set[str] = set()
    while waiting:
        at = waiting.pop()
        waiting += at.values() if isinstance(at, dict) else at if isinstance(at, list) else ()
        seen: set[str] = set()
        while (reference := _reference(at)) is not None and reference not in ending:
            if reference in seen:
                raise ValueError(f"the $ref {reference!r} leads to itself and nowhere else")
            seen.add(reference)
            at = _referred(schema, reference)
        ending |= seen
    return schema


def _reference(at: Any) -> str | None:
    """The local `$ref` of this part of the schema, or None."""
    reference = at.get("$ref") if isinstance(at, dict) else None
    return reference if isinstance(reference, str) and reference.startswith("#") else None


def _referred(schema: Any, reference: str) -> Any:
    """The part of the schema that a local `$ref` (a JSON pointer, RFC 6901, after `#`) points to."""
    at = schema
    for part in unquote(reference.removeprefix("#")).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        try:
            at = at[int(key)] if isinstance(at, list) else at[key]
        except (LookupError, TypeError, ValueError):
            raise ValueError(f"the $ref {reference!r} names nothing in the schema") from None
    return at


AnyObject = Annotated[dict[str, Any], AfterValidator(_plain)]  # any object that JSON can hold, within limits
AnySchema = Annotated[AnyObject, AfterValidator(_referring)]


class Text(Description):
    """No structure: any text."""

    type: Literal["text"]


class JsonObject(Description):
    """Some JSON object."""

    type: Literal["json_object"]


class Schema(WithoutNulls):
    """A named JSON schema; `strict` holds the answer to it. The SDK's objects write `schema` as `schema_`."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: AnySchema | None = Field(default=None, alias="schema")
    strict: bool | None = None


class JsonSchema(WithoutNulls):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: Schema


Format = Annotated[Text | JsonObject | JsonSchema, Field(discriminator="type")]


def structure(wanted: Format | None) -> dict[str, Any] | None:
    """The structure that the engine enforces; see `Sampling.structure`. A schema that is not strict: any JSON."""
    if isinstance(wanted, JsonSchema) and wanted.json_schema.strict:
        return {"json": wanted.json_schema.schema_ or {}}
    return None if wanted is None or isinstance(wanted, Text) else {"json_object": True}


def instruction(wanted: Format | None) -> str | None:
    """The instruction that tells the model the schema. It helps even if the engine enforces the schema."""
    if isinstance(wanted, JsonSchema) and wanted.json_schema.schema_:
        described = f"{wanted.json_schema.description}\n" if wanted.json_schema.description else ""
        return described + BEST_EFFORT + json.dumps(wanted.json_schema.schema_, ensure_ascii=False)
    return None
