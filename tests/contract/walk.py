"""Makes valid requests from OpenAI's published schema: each field in turn, with values at both ends of its range."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.contract.condense import CONDENSED, Node

PUBLISHED: dict[str, dict[str, Any]] = json.loads(CONDENSED.read_text(encoding="utf-8"))
DEFINITIONS: dict[str, Node] = PUBLISHED["definitions"]
TEXTS = ("x", "e\u0301 \u2028 \u202eabc\u202c \U0001f600")  # combining, a line separator, right-to-left, astral
MANY = 2048  # items of a list that is filled to its limit


@dataclass(frozen=True)
class Walk:
    """Walks a schema.

    Attributes:
        fixed: values for places (`tools[].function.name`) that need existing names instead of made-up ones.
    """

    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def values(self, node: Node, place: str = "", seen: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
        """For each place under a node, each of its values, within the smallest valid value of the node.

        Yields:
            The place that differs, and the node's whole value.
        """
        if place in self.fixed:
            yield from ((place, value) for value in self.fixed[place])
        elif "any" in node:
            for branch in node["any"]:
                yield from self.values(branch, place, seen)
        elif "ref" in node:
            if node["ref"] not in seen:  # a type that contains itself is walked once
                yield from self.values(DEFINITIONS[node["ref"]], place, (*seen, node["ref"]))
        elif node["is"] == "object":
            yield from self._objects(node, place, seen)
        elif node["is"] == "array":
            yield from self._arrays(node, place, seen)
        else:
            yield from ((place, value) for value in plain(node))

    def smallest(self, node: Node, place: str = "") -> Any:
        """The smallest valid value: without optional fields."""
        if place in self.fixed:
            return self.fixed[place][0]
        if "any" in node:
            return self.smallest(node["any"][0], place)
        if "ref" in node:
            return self.smallest(DEFINITIONS[node["ref"]], place)
        if node["is"] == "object":
            return {name: self.smallest(node["fields"][name], under(place, name)) for name in node.get("needs", ())}
        if node["is"] == "array":
            return [self.smallest(node["of"], f"{place}[]")] * node.get("min", 0)
        return plain(node)[0]

    def _objects(self, node: Node, place: str, seen: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        least = self.smallest(node, place)
        yield place, least
        for name, one in node["fields"].items():
            for where, value in self.values(one, under(place, name), seen):
                yield where, {**least, name: value}
        if "of" in node:
            keys = ["1"] if place.endswith("logit_bias") else ["key", *TEXTS[1:]]  # token ids
            for key in keys:
                yield from (
                    (place, {**least, key: value}) for _, value in self.values(node["of"], f"{place}{{}}", seen)
                )
            if "most" in node:
                value = self.smallest(node["of"], f"{place}{{}}")
                yield place, {f"{number:02}".ljust(node["key_max"], "k"): value for number in range(node["most"])}

    def _arrays(self, node: Node, place: str, seen: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        least, of = node.get("min", 0), self.smallest(node["of"], f"{place}[]")
        if least == 0:
            yield place, []
        for where, value in self.values(node["of"], f"{place}[]", seen):
            yield where, [value, *[of] * (least - 1)]
        if node.get("max", MANY + 1) <= MANY:
            yield place, [of] * node["max"]


def under(place: str, name: str) -> str:
    """The place of a field."""
    return f"{place}.{name}" if place else name


def plain(node: Node) -> list[Any]:
    """Values of a type without parts: all of an enum, both ends of a range."""
    if "enum" in node:
        return list(node["enum"])
    kind = node["is"]
    if kind == "null":
        return [None]
    if kind == "boolean":
        return [False, True]
    if kind in ("integer", "number"):
        return _numbers(node, kind)
    if kind == "string":
        return _texts(node)
    return ["x", 1, None, [], {}]  # any type is allowed


def _numbers(node: Node, kind: str) -> list[Any]:
    above = node.get("above")
    low = node["min"] if "min" in node else above * 1.01 or 1e-6 if above is not None else 1
    high = node.get("max", max(low, 1) + 1)
    between = [(low + high) / 2, float(high)] if kind == "number" else []
    return list(dict.fromkeys([low, high, *between]))


def _texts(node: Node) -> list[str]:
    if node.get("format") == "uri":
        return ["https://example.org/x"]
    if "pattern" in node:
        return ["tunnel_" + "a" * 32 if "tunnel" in node["pattern"] else "a_-Z9"]
    longest = ["é" * node["max"]] if "max" in node else []
    return [*(text for text in TEXTS if len(text) <= node.get("max", len(text))), *longest]


def places(node: Node, place: str = "", seen: tuple[str, ...] = ()) -> set[str]:
    """Every field under a node, such as `tools[].function.name`."""
    if "any" in node:
        return set().union(*(places(branch, place, seen) for branch in node["any"]))
    if "ref" in node:
        return set() if node["ref"] in seen else places(DEFINITIONS[node["ref"]], place, (*seen, node["ref"]))
    if node["is"] == "array":
        return places(node["of"], f"{place}[]", seen)
    found: set[str] = set()
    for name, one in node.get("fields", {}).items():
        found |= {under(place, name)} | places(one, under(place, name), seen)
    return found


def above(path: str) -> list[str]:
    """The path and its parents: those of `tools[].x` are `tools[]` and `tools`."""
    steps = path.replace("[]", ".[]").split(".")
    return [".".join(steps[:end]).replace(".[]", "[]") for end in range(len(steps), 0, -1)]
