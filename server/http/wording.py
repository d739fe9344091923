"""Describes what is wrong with a request in its own terms: fields and JSON types, no Python."""

import re
from collections.abc import Sequence
from typing import Any

Found = dict[str, Any]  # one of pydantic's errors
Path = list[str | int]

EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer of 64 bits",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "an array",
    "tuple_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dataclass_type": "an object",
    "none_required": "null",
}
LIMITS = {
    "greater_than": ("gt", "a number above {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "a number below {}"),
    "less_than_equal": ("le", "{} or less"),
    "string_too_short": ("min_length", "a string of at least {} characters"),
    "string_too_long": ("max_length", "a string of at most {} characters"),
    "too_short": ("min_length", "at least {} of them"),
    "too_long": ("max_length", "at most {} of them"),
    "string_pattern_mismatch": ("pattern", "a string that matches {}"),
}
UNPRINTABLE = re.compile("[\0\ud800-\udfff]")  # NUL, and half of a surrogate pair, which has no UTF-8
LONGEST_SHOWN = 60
UNKNOWN_ITEM = "unknown_item"  # an error type of `/v1/responses`
NO_FILE = "Expected UploadFile"  # FastAPI's message for a form's part without a file name


def mended(text: str) -> str:
    """The text with U+FFFD for characters that answers or databases cannot hold."""
    return UNPRINTABLE.sub("\ufffd", text)


def told(errors: Sequence[Found], body: Any) -> tuple[str, str, str | None]:
    """Message, OpenAI's code, and the field at fault.

    Args:
        errors: pydantic's, at least one.
        body: the request's body, if the errors are in it.
    """
    found, path = _at_fault(errors, body)
    field = ".".join(map(str, path)) or None
    kind = found["type"]
    if kind == "missing":
        if field is None:
            return "The request has no body; send a JSON object.", "missing_required_parameter", None
        return f"Missing required parameter: '{field}'.", "missing_required_parameter", field
    if kind == "extra_forbidden":
        return f"Unknown parameter: '{field}'.", "unknown_parameter", field
    if kind == "value_error" and NO_FILE in found["msg"]:
        message = f"Invalid value for '{field}': expected a file; give that part of the form a file name."
        return message, "invalid_value", field
    if kind == "value_error":
        message = str(found["msg"]).removeprefix("Value error, ")
        return f"Invalid value for '{field}': {message}" if field else message, "invalid_value", field
    same = [other for other in errors if _path(other, body) == path]
    wanted = list(dict.fromkeys(filter(None, (_expected(other) for other in same))))
    place = f"'{field}'" if field else "the request's body"
    if kind == UNKNOWN_ITEM:
        given = found["input"].get("type") if isinstance(found["input"], dict) else None
        return f"Invalid value for {place}: {found['msg']}, not {_shown({'input': given})}", "invalid_value", field
    if not wanted:
        return f"Invalid value for {place}: {found['msg']}", "invalid_value", field
    return f"Invalid value for {place}: expected {' or '.join(wanted)}, got {_shown(found)}.", "invalid_value", field


def _expected(found: Found) -> str | None:
    kind, context = found["type"], found.get("ctx", {})
    if kind in LIMITS:
        key, words = LIMITS[kind]
        limit = context[key]
        return words.format(f"{limit:g}" if isinstance(limit, float) else limit)
    if kind == "literal_error":
        return (
            f"one of {context['expected'].replace(' or ', ', ')}"
            if "," in context["expected"]
            else (context["expected"])
        )
    if kind == "union_tag_invalid":
        return f"{context['discriminator'].strip(chr(39))} to be one of {context['expected_tags']}"
    if kind == "union_tag_not_found":
        return f"an object with {context['discriminator']}"
    return EXPECTED.get(kind)


def _shown(found: Found) -> str:
    value = found.get("input")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return str(value)[:LONGEST_SHOWN]
    if isinstance(value, str):
        return repr(value) if len(value) <= LONGEST_SHOWN else f"a string of {len(value)} characters"
    if isinstance(value, list | tuple):
        return f"an array of {len(value)}"
    return "an object" if isinstance(value, dict) else "a file"  # in a form


def _at_fault(errors: Sequence[Found], body: Any) -> tuple[Found, Path]:
    """The first wrong field's error and the path to it; in a union, the branch that matched furthest."""
    placed = [(found, _path(found, body)) for found in errors]
    same = [(found, path) for found, path in placed if path[:1] == placed[0][1][:1]]
    return max(same, key=lambda pair: (len(pair[1]), pair[0]["type"] != "missing"))


def _path(found: Found, body: Any) -> Path:
    """The error's location as a path into the body, without the union branch names that pydantic adds."""
    place, *path = found["loc"]
    if place != "body" or not isinstance(body, dict | list):
        return path
    known: Path = []
    at: Any = body
    for part in path:
        if isinstance(at, dict) and (part in at or (found["type"] == "missing" and part is path[-1])):
            at = at.get(part)
            known.append(part)
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            at = at[part]
            known.append(part)
    return known
