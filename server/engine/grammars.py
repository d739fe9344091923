"""What a grammar can be asked to hold an answer to: vLLM's own checks of a schema come too late for some.

llguidance, which takes the schemas that xgrammar does not know, writes out every item of an array that has a bound.
With ten million the server died of memory while it checked the schema, and at 65,000 the grammar had a symbol too many.
xgrammar writes out the properties of an object with a bound once for each number of them: a thousand took 4 s.
A regular expression of 200,000 letters took 11 s, one of 100,000 with nested stars did not end; grammars are compiled
one after another, so everybody else's waited.
"""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.sampling_params import StructuredOutputsParams

MAX_PLACES = 10_000
MAX_CHARACTERS = {"regex": 10_000, "choice": 50_000, "grammar": 50_000, "json": 150_000, "structural_tag": 150_000}


def places(schema: Any) -> float:
    """What is written out of a schema's arrays and objects that have bounds (`minItems`, `maxProperties`, ...).

    Args:
        schema: an object, or its JSON; what is neither has none, and is left to vLLM to refuse.
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
    """Whether a grammar can be written out, and within seconds; see `places`.

    Raises:
        ValueError: it is too long, or has more than MAX_PLACES.
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
