"""Limits on schemas and grammars for answers, checked before vLLM compiles them, since its own checks come too late.

llguidance, which compiles the schemas that xgrammar does not support, writes out every item of an array with a bound:
ten million exhausted the server's memory, and 65,000 were more symbols than a grammar may have. xgrammar writes out the
properties of an object with a bound once for each number of them: a thousand took 4 s. A regular expression of 200,000
letters took 11 s, one of 100,000 with nested stars did not end. Grammars are compiled one by one, so all others wait.
"""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.sampling_params import StructuredOutputsParams

MAX_PLACES = 10_000
MAX_CHARACTERS = {"regex": 10_000, "choice": 50_000, "grammar": 50_000, "json": 150_000, "structural_tag": 150_000}


def places(schema: Any) -> float:
    """Estimate the symbols that a grammar needs for arrays and objects with bounds (`minItems`, `maxProperties`, ...).

    Args:
        schema: an object, or its JSON; anything else counts as 0, and vLLM refuses it.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (RecursionError, ValueError):
            return 0
    found = 0.0
    waiting = [schema]
    while waiting:
        at = waiting.pop()
        if isinstance(at, dict):
            found += _bound(at, "Items")
            names = at.get("properties")
            named = len(names) if isinstance(names, dict) else 0
            found += named * min(_bound(at, "Properties"), named)
        waiting += at.values() if isinstance(at, dict) else at if isinstance(at, list) else ()
    return found


def _bound(schema: dict[str, Any], of: str) -> float:
    given = (schema.get(f"min{of}"), schema.get(f"max{of}"))
    return sum(max(bound, 0) for bound in given if isinstance(bound, int | float))


def check(structure: "StructuredOutputsParams") -> None:
    """Refuse a structure whose grammar would be too large or too slow to compile.

    Raises:
        ValueError: it has too many characters, or needs more than MAX_PLACES symbols (see `places`).
    """
    for name, limit in MAX_CHARACTERS.items():
        wanted = getattr(structure, name)
        length = len(wanted if isinstance(wanted, str) else json.dumps(wanted))
        if length > limit:
            raise ValueError(f"the structure's {name} has {length} characters; at most {limit} are taken")
    found = places(structure.json) + places(structure.structural_tag)
    if found > MAX_PLACES:
        raise ValueError(
            f"minItems, maxItems, minProperties and maxProperties of the schema make {found:g} places; "
            f"expected {MAX_PLACES} or less"
        )
