"""Condenses OpenAI's published schema to what a walk needs: fields, types, ranges, what may be null.

    python -m tests.contract.condense openapi.json     # github.com/openai/openai-openapi; writes openai.json

The schema writes null in three ways (`nullable`, a branch of type null, null in an enum), has unions of one branch, and
states some limits in prose only (`PROSE`). Condensed, null is a branch, unions are flat, and limits in prose are added.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONDENSED = Path(__file__).with_name("openai.json")
ROUTES = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
    "embeddings": "/embeddings",
    "files": "/files",
    "uploads": "/uploads",
    "upload_complete": "/uploads/{upload_id}/complete",
    "batches": "/batches",
    "jobs": "/fine_tuning/jobs",
    "graders_run": "/fine_tuning/alpha/graders/run",
    "graders_validate": "/fine_tuning/alpha/graders/validate",
    "permissions": "/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions",
}
LISTS = (
    "/batches",
    "/files",
    "/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions",
    "/fine_tuning/jobs",
    "/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints",
    "/fine_tuning/jobs/{fine_tuning_job_id}/events",
    "/responses/{response_id}/input_items",
)
PROSE: dict[str, dict[str, Any]] = {  # limits that are only in descriptions
    "Metadata": {"most": 16, "key_max": 64, "of": {"is": "string", "max": 512}},
    "limit": {"min": 1, "max": 100},
    "/files limit": {"min": 1, "max": 10_000},
    "logit_bias": {"of": {"is": "integer", "min": -100, "max": 100}},
    "GraderScoreModel.input": {"min": 1},
    **{f"GraderLabelModel.{name}": {"min": 1} for name in ("input", "labels", "passing_labels")},
}
BOUNDS = {
    "minLength": "min",
    "maxLength": "max",
    "minItems": "min",
    "maxItems": "max",
    "minimum": "min",
    "maximum": "max",
    "pattern": "pattern",
    "enum": "enum",
    "format": "format",
}

Node = dict[str, Any]


class Condensed:
    """The condensed definitions that are used, by name."""

    def __init__(self, document: Node) -> None:
        self._schemas: dict[str, Node] = document["components"]["schemas"]
        self.definitions: dict[str, Node] = {}

    def node(self, schema: Node, name: str = "") -> Node:
        """One schema, condensed.

        Args:
            name: the field's name, for limits in PROSE.
        """
        branches = list(self._branches(schema, name))
        if schema.get("nullable"):
            branches.append({"is": "null"})
        flat: list[Node] = []
        for branch in branches:
            flat += [one for one in branch.get("any", [branch]) if one not in flat]
        return flat[0] if len(flat) == 1 else {"any": flat}

    def _branches(self, schema: Node, name: str) -> Iterator[Node]:
        if "$ref" in schema:
            yield self._reference(schema["$ref"].rpartition("/")[2])
        elif union := schema.get("anyOf") or schema.get("oneOf"):
            yield from (self.node({**schema_of(branch), **inherited(schema, branch)}, name) for branch in union)
        elif parts := schema.get("allOf"):
            own = [self._object(schema, name)] if "properties" in schema else []
            yield merged([self._resolved(self.node(part, name)) for part in parts] + own)
        elif isinstance(schema.get("type"), list):
            yield from (self.node({**schema, "type": one}, name) for one in schema["type"])
        else:
            yield from self._plain(schema, name)

    def _reference(self, name: str) -> Node:
        if name not in self.definitions:
            self.definitions[name] = {}  # a placeholder, since it may contain itself
            self.definitions[name] = self.node(self._schemas[name], name)
        return {"ref": name}

    def _resolved(self, node: Node) -> Node:
        return self._resolved(self.definitions[node["ref"]]) if "ref" in node else node

    def _plain(self, schema: Node, name: str) -> Iterator[Node]:
        kind = schema.get("type")
        values = schema.get("enum")
        if values is not None and None in values:
            yield {"is": "null"}
            schema = {**schema, "enum": [one for one in values if one is not None]}
            if not schema["enum"]:
                return
        if kind == "object" or "properties" in schema:
            yield self._object(schema, name) | PROSE.get(name, {})
        elif kind == "array":
            yield {"is": "array", "of": self.node(schema.get("items", {})), **bounds(schema)}
        elif kind is None and "enum" not in schema:
            yield {"is": "any"}
        else:
            limits = PROSE.get(name, {}) if kind != "null" else {}
            yield {"is": kind or "string", **bounds(schema), **limits}

    def _object(self, schema: Node, owner: str) -> Node:
        fields = {
            name: self.node(one, name) | PROSE.get(f"{owner}.{name}", {})
            for name, one in schema.get("properties", {}).items()
        }
        found: Node = {"is": "object", "fields": fields}
        if schema.get("required"):
            found["needs"] = [name for name in schema["required"] if name in fields]
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict) and rest:
            found["of"] = self.node(rest)
        elif not fields:
            found["of"] = {"is": "any"}
        return found


def schema_of(branch: Node) -> Node:
    """A branch of a union without its documentation."""
    return {key: value for key, value in branch.items() if key not in ("description", "title")}


def inherited(schema: Node, branch: Node) -> Node:
    """What a branch inherits from its union: the type."""
    return {"type": schema["type"]} if "type" in schema and not branch.keys() & {"type", "$ref", "anyOf"} else {}


def bounds(schema: Node) -> Node:
    """The schema's limits, by short names."""
    found = {short: schema[long] for long, short in BOUNDS.items() if long in schema}
    if "min" in found and schema.get("exclusiveMinimum") is True:
        found["above"] = found.pop("min")
    if isinstance(schema.get("exclusiveMinimum"), int | float) and schema["exclusiveMinimum"] is not True:
        found["above"] = schema["exclusiveMinimum"]
    return found


def merged(parts: list[Node]) -> Node:
    """Objects joined into one."""
    fields = {name: one for part in parts for name, one in part.get("fields", {}).items()}
    needs = [name for part in parts for name in part.get("needs", [])]
    return {"is": "object", "fields": fields, **({"needs": list(dict.fromkeys(needs))} if needs else {})}


def reached(node: Any, definitions: dict[str, Node]) -> set[str]:
    """Names of the definitions under a node."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        at: Any = waiting.pop()
        if isinstance(at, dict) and isinstance(name := at.get("ref"), str) and name not in found:
            found.add(name)
            waiting.append(definitions[name])
        waiting += at.values() if isinstance(at, dict) else at if isinstance(at, list) else ()
    return found


def main(path: Path) -> None:
    """Write the condensed schema, a definition a line."""
    document = json.loads(path.read_text(encoding="utf-8"))
    condensed = Condensed(document)
    bodies: dict[str, Node] = {}
    for name, route in ROUTES.items():
        (content,) = list(document["paths"][route]["post"]["requestBody"]["content"].values())[:1]
        bodies[name] = condensed.node(content["schema"])
    queries = {
        route: {
            one["name"]: condensed.node(one["schema"], one["name"]) | PROSE.get(f"{route} {one['name']}", {})
            for one in document["paths"][route]["get"].get("parameters", [])
            if one["in"] == "query"
        }
        for route in LISTS
    }
    used = sorted(reached(bodies, condensed.definitions))
    parts = {"bodies": bodies, "queries": queries, "definitions": {name: condensed.definitions[name] for name in used}}
    lines: list[str] = []
    for part, entries in parts.items():
        inner = [f"{json.dumps(name)}: {json.dumps(one)}" for name, one in sorted(entries.items())]
        lines.append(f"{json.dumps(part)}: {{\n" + ",\n".join(inner) + "\n}")
    CONDENSED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
