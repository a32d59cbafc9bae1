"""Do a call's arguments fit a function's schema? The part of JSON Schema that functions use; nothing here raises."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from rerouting.core.records import Tool

_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: _is_number(value),
    "integer": lambda value: _is_number(value) and value == int(value),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
DEEPEST = 20


def schema_problem(tool: Tool) -> str:
    """Why a function's schema cannot be used, "" if it can."""
    if not isinstance(tool.name, str) or not tool.name.strip():
        return "a function without a name"
    schema = tool.parameters
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        return f"{tool.name}: the parameters are no schema of type object"
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return f"{tool.name}: properties are no object, or required is no list"
    for name, part in properties.items():
        if not isinstance(part, Mapping):
            return f"{tool.name}: {name} has no schema"
        problem = _kinds_problem(part)
        if problem:
            return f"{tool.name}: {name} {problem}"
    missing = [name for name in required if name not in properties]
    return f"{tool.name}: {missing[0]} is required and not described" if missing else ""


def argument_problem(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """Why arguments do not fit a function's schema, "" if they do; a schema that cannot be used fits nothing."""
    problem = schema_problem(tool)
    if problem:
        return problem
    properties = tool.parameters.get("properties", {})
    for name in tool.parameters.get("required", []):
        if name not in arguments:
            return f"{name} is missing"
    for name, value in arguments.items():
        if name not in properties:
            return f"{name} is not among the arguments"
        problem = _value_problem(value, properties[name])
        if problem:
            return f"{name} {problem}"
    return ""


def _kinds(schema: Mapping[str, Any]) -> list[Any]:
    kinds = schema.get("type", [])
    return list(kinds) if isinstance(kinds, list) else [kinds]


def _kinds_problem(schema: Mapping[str, Any]) -> str:
    unknown = [kind for kind in _kinds(schema) if not isinstance(kind, str) or kind not in _TYPES]
    if unknown:
        return f"is of an unknown type, {unknown[0]!r}"
    return "" if isinstance(schema.get("enum", []), list) else "has an enum that is no list"


def _value_problem(value: Any, schema: Any, depth: int = 0) -> str:
    if depth > DEEPEST:
        return "is nested too deeply"
    if not isinstance(schema, Mapping):
        return "has no schema"
    problem = _kinds_problem(schema)
    if problem:
        return problem
    kinds = _kinds(schema)
    if kinds and not any(_TYPES[kind](value) for kind in kinds):
        return f"is not of type {' or '.join(kinds)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"is none of {', '.join(map(str, schema['enum']))}"
    return _parts_problem(value, schema, depth)


def _parts_problem(value: Any, schema: Mapping[str, Any], depth: int) -> str:
    if isinstance(value, list):
        parts = [(item, schema.get("items", {})) for item in value]
    elif isinstance(value, dict) and isinstance(schema.get("properties", {}), Mapping):
        known = schema.get("properties", {})
        parts = [(item, known.get(name, {})) for name, item in value.items()]
    else:
        parts = []
    problems = (_value_problem(item, part, depth + 1) for item, part in parts)
    return next((f"holds a part that {problem}" for problem in problems if problem), "")


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)
