"""Schemas that vLLM's own checks would die of are refused before."""

import json
from typing import Any

import pytest

from server.engine.grammars import MAX_CHARACTERS, MAX_PLACES, places
from server.engine.sampling import parameters, refused
from server.engine.tools import ToolParsing
from server.inference.engine import STRUCTURE, Sampling, Tools

HUGE: dict[str, Any] = {"type": "array", "minItems": 10**9}  # took 13 GB, and with it the server's process


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "array", "items": {}, "maxItems": 5}, 5),
        ({"properties": {"a": {"minItems": 2, "maxItems": 3}, "b": {"anyOf": [{"maxItems": 4.0}]}}}, 9),
        ({"minItems": -(10**9), "maxItems": 7}, 7),
        ({"properties": {"maxItems": {"type": "integer"}}}, 0),
        ({"properties": {"a": {}, "b": {}, "c": {}}, "maxProperties": 2}, 6),
        ({"properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 10**9}, 9),
        ({"properties": {"a": {}}, "required": ["a"]}, 0),
        ('{"maxItems": 6}', 6),
        ('{"maxItems": 1e999}', float("inf")),
        ("{", 0),
        ("[" * 100_000, 0),
        (None, 0),
    ],
)
def test_places_are_counted_wherever_a_schema_bounds_them(schema: Any, expected: float) -> None:
    assert places(schema) == expected


@pytest.mark.parametrize("schema", [HUGE, json.dumps(HUGE), {"$defs": {"a": HUGE}}, {"type": "array", "maxItems": 1e9}])
def test_a_schema_with_too_many_items_is_refused_as_one(schema: Any) -> None:
    with pytest.raises(ValueError, match="make 1e\\+09 places") as raised:
        parameters(Sampling(structure={"json": schema}), 100, None, {})
    assert refused(raised.value, None).param == STRUCTURE
    parameters(Sampling(structure={"json": {"type": "array", "maxItems": MAX_PLACES}}), 100, None, {})


@pytest.mark.parametrize("choice", ["auto", "required", "f"])
def test_so_is_a_tools_only_where_it_is_held_to_it(choice: str, tokenizer: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {}, "maxItems": 2**31 - 1}}}

    def tools(**more: Any) -> Tools:
        return Tools(({"type": "function", "function": {"name": "f", "parameters": schema, **more}},), choice)

    parsing = ToolParsing("hermes", tokenizer)
    parameters(Sampling(), 100, parsing.begin(tools(), [1], Sampling()), {})
    calls = parsing.begin(tools(strict=True), [1], Sampling())
    with pytest.raises(ValueError, match="maxItems") as raised:
        parameters(Sampling(), 100, calls, {})
    assert refused(raised.value, calls).param == "tools"


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("regex", lambda count: "(a*)*" * (count // 5 + 1)),
        ("choice", lambda count: ["a"] * (count // 5 + 1)),
        ("grammar", lambda count: 'root ::= "' + "a" * count + '"'),
        ("json", lambda count: {"enum": ["a" * count]}),
        ("structural_tag", lambda count: json.dumps({"a": "a" * count})),
    ],
)
def test_a_grammar_that_takes_a_minute_is_refused(kind: str, made: Any) -> None:
    limit = MAX_CHARACTERS[kind]
    parameters(Sampling(structure={kind: made(limit - 100)}), 100, None, {})
    with pytest.raises(ValueError, match=f"{kind} has .* characters; at most {limit}") as raised:
        parameters(Sampling(structure={kind: made(limit + 1)}), 100, None, {})
    assert refused(raised.value, None).param == STRUCTURE
