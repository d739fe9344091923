"""An adapter's JSON files in whatever encoding editors and shells wrote them; they are stored as plain UTF-8.

PowerShell's `>` writes UTF-16, and Notepad a byte order mark. Python's `json.loads` detects both in bytes; PEFT and
vLLM open the file as text and do not. So the stored file is rewritten, and they read the same content as our checks.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters.errors import InvalidAdapter

MAX_BYTES = 1_000_000
MAX_DEPTH = 32  # PEFT nests three deep; a JSON reader's own limit depends on its caller's stack
_SHOWN = 100  # characters of a value in a message
_EXPECTED = {  # by the first word of pydantic's error types
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "a string",
    "list": "an array",
    "dict": "an object",
    "model": "an object",
}


def read(path: Path) -> dict[str, Any]:
    """The JSON object in a file, in any encoding of Unicode.

    Raises:
        InvalidAdapter: the file is no text, no JSON object, over a megabyte or nested too deeply, or holds something
            that JSON readers treat differently: a repeated key, NaN or infinity, half of a surrogate pair.
    """
    name = path.name
    try:
        content = json.loads(_text(path), object_pairs_hook=lambda pairs: _once(name, pairs))
    except InvalidAdapter:  # it is a ValueError too
        raise
    except RecursionError as error:
        raise InvalidAdapter(name, f"is nested more than {MAX_DEPTH} deep") from error
    except ValueError as error:
        said = str(error).partition("; use sys.")[0]  # without Python's advice about too long numbers
        raise InvalidAdapter(name, f"is not JSON: {said}") from error
    if not isinstance(content, dict):
        found = "an array" if isinstance(content, list) else shown(content)
        raise InvalidAdapter(name, f"holds {found}; expected an object, {{…}}")
    _check(name, content)
    return content


def unfit(name: str, content: dict[str, Any], error: ValidationError) -> InvalidAdapter:
    """The first of pydantic's errors as an InvalidAdapter, in JSON's words."""
    first, *others = error.errors()
    place = _place(content, first["loc"])
    key = ".".join([name, *place])
    if first["type"] == "missing":
        return InvalidAdapter(f"{key}.{first['loc'][-1]}", "is missing; it is required")
    if first["type"] == "extra_forbidden":
        return InvalidAdapter(key, "is unknown; take it out")
    branches = [one for one in (first, *others) if _place(content, one["loc"]) == place]
    if first["type"] == "string_too_long":
        return InvalidAdapter(key, f"is longer than {first.get('ctx', {}).get('max_length')} characters")
    wanted = " or ".join(dict.fromkeys(map(_wanted, branches)))
    return InvalidAdapter(key, f"is {shown(first['input'])}; expected {wanted}")


def shown(value: Any) -> str:
    """A JSON value for a message, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def make_plain(path: Path, *, ascii_only: bool = False) -> None:
    """Rewrite a JSON file as UTF-8 without a byte order mark; a file that is already so is not touched.

    Args:
        ascii_only: escape all other characters: PEFT and vLLM open adapter_config.json in the locale's encoding.

    Raises:
        InvalidAdapter: the file is no text.
    """
    text = _text(path)
    if ascii_only:  # outside of strings, JSON is ASCII
        text = re.sub(r"[^\x00-\x7f]+", lambda found: json.dumps(found[0])[1:-1], text)
    if (plain := text.encode()) != path.read_bytes():
        path.write_bytes(plain)


def write(path: Path, content: dict[str, Any]) -> None:
    """Write an object as PEFT does, but with keys in their own order: of two patterns that match, the first counts."""
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _text(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InvalidAdapter(path.name, f"has {size} bytes; at most {MAX_BYTES} are allowed")
    content = path.read_bytes()
    encoding = json.detect_encoding(content)
    try:
        return content.decode(encoding).lstrip("\ufeff")  # two tools may each have added a byte order mark
    except UnicodeDecodeError as error:
        raise InvalidAdapter(
            path.name, f"is no {encoding.upper()} text (byte {error.start}: {error.reason}); save it as UTF-8"
        ) from error


def _place(content: Any, location: tuple[int | str, ...]) -> list[str]:
    """The error's location as a path into the content, without the union branch names that pydantic adds."""
    place: list[str] = []
    for part in location:
        try:
            content = content[part]
        except (LookupError, TypeError):
            continue
        place.append(str(part))
    return place


def _wanted(fault: Any) -> str:
    if fault["type"] == "too_long":
        return f"at most {fault['ctx']['max_length']} entries"
    return _EXPECTED.get(fault["type"].partition("_")[0]) or fault["msg"].removeprefix("Input should be ")


def _once(name: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise InvalidAdapter(f"{name}.{key}", "stands there twice; keep the one that is meant")
        content[key] = value
    return content


def _check(name: str, content: dict[str, Any]) -> None:
    """Check every value, without recursion."""
    found: list[tuple[str, Any, int]] = [(name, content, 1)]
    while found:
        place, value, depth = found.pop()
        if depth > MAX_DEPTH:
            raise InvalidAdapter(name, f"is nested more than {MAX_DEPTH} deep")
        if isinstance(value, dict):
            found += [(f"{place}.{key}", key, depth + 1) for key in value]
            found += [(f"{place}.{key}", inner, depth + 1) for key, inner in value.items()]
        elif isinstance(value, list):
            found += [(f"{place}.{number}", inner, depth + 1) for number, inner in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            raise InvalidAdapter(place, f"is {value}, which is no JSON number; expected a finite one")
        elif isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise InvalidAdapter(
                    place, "holds half of a surrogate pair, which is no character; take it out"
                ) from error
