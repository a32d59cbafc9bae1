"""Functions as Gorilla's data sets describe them, as JSON Schema.

OpenFunctions and BFCL write Python's types ("dict", "float", "tuple") where JSON Schema has "object", "number" and
"array"; the first OpenFunctions lists parameters ({"name": …, "description": …}) in place of a schema; and a function's
name may be in `api_call` or `api_name`, `name` being a title then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rerouting.core.records import Tool

_TYPES = {
    "dict": "object",
    "float": "number",
    "double": "number",
    "int": "integer",
    "long": "integer",
    "str": "string",
    "char": "string",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
}
_INNER = ("items", "additionalProperties")


def tool_of(described: Any) -> Tool | None:
    """The function that is described; None if it has no name, or parameters of no known form."""
    if not isinstance(described, Mapping):
        return None
    name = next((described[key] for key in ("api_call", "api_name", "name") if described.get(key)), None)
    parameters = described.get("parameters") or {}
    if isinstance(parameters, list):
        parameters = _listed(parameters)
    if not isinstance(name, str) or not isinstance(parameters, Mapping):
        return None
    schema = {"type": "object", "properties": {}} | _as_json_schema(parameters)
    return Tool(name, str(described.get("description", "")), schema)


def _listed(parameters: list[Any]) -> Mapping[str, Any] | None:
    """A schema of listed parameters, all of them text and required, as they do not say."""
    if not all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in parameters):
        return None
    properties = {
        one["name"]: {"type": "string"} | {key: value for key, value in one.items() if key != "name"}
        for one in parameters
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _as_json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = dict(schema)
    kind = found.get("type")
    if kind == "any":
        del found["type"]
    elif isinstance(kind, str):
        found["type"] = _TYPES.get(kind.lower(), kind.lower())
    properties = found.get("properties")
    if isinstance(properties, Mapping):
        found["properties"] = {
            name: _as_json_schema(one) if isinstance(one, Mapping) else one
            for name, one in properties.items()
        }
    for name in _INNER:
        if isinstance(found.get(name), Mapping):
            found[name] = _as_json_schema(found[name])
    return found
