"""The Berkeley Function-Calling Leaderboard's AST match for Python categories, after its published rules.

Source: Patil et al. 2023, arXiv 2305.15334, and the checker of bfcl-eval 2026.3.23 (Apache-2.0), whose verdicts these
are (benchmarks/bfcl_parity.py compares them). An answer key has, for each argument, the list of values that are right;
"" among them says that the argument may be left out. Text is compared without regard to case, blanks and `,./-_*^`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rerouting.core.records import Call

Key = Mapping[str, Mapping[str, Sequence[Any]]]
"""Of one call: {function: {argument: right values}}."""
_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
_IGNORED = re.compile(r"[ ,./\-_*^]")


def bfcl_mismatch(calls: Sequence[Call], functions: Sequence[Mapping[str, Any]], keys: Sequence[Key]) -> str:
    """How calls differ from the answer key, in any order, "" if they do not.

    Args:
        calls: what a model made.
        functions: as the leaderboard describes them, in its own types.
        keys: one for each call that is asked for; none where no function fits the request.
    """
    if len(calls) != len(keys):
        return f"{len(calls)} calls, not {len(keys)}"
    left = list(calls)
    for key in keys:
        (name, right), *_ = key.items()
        described = next((one for one in functions if one.get("name") == name), {})
        reasons = [_difference(call, name, described.get("parameters", {}), right) for call in left]
        if "" not in reasons:
            return reasons[0] if len(keys) == 1 else f"no call matches {name}"
        del left[reasons.index("")]
    return ""


def _difference(call: Call, name: str, schema: Mapping[str, Any], right: Mapping[str, Sequence[Any]]) -> str:
    if call.name != name:
        return "another function"
    properties = schema.get("properties", {})
    for argument in schema.get("required", []):
        if argument not in call.arguments:
            return f"{argument} is missing"
    for argument, value in call.arguments.items():
        if argument not in properties or argument not in right:
            return f"{argument} was not asked for"
        if not _is_right(value, properties[argument], right[argument]):
            return f"{argument} differs"
    for argument, values in right.items():
        if argument not in call.arguments and "" not in values:
            return f"{argument} is missing"
    return ""


def _is_right(value: Any, schema: Mapping[str, Any], right: Sequence[Any]) -> bool:
    kind, inner = _TYPES.get(schema.get("type", "")), _TYPES.get(schema.get("items", {}).get("type", ""))
    if kind is float and type(value) is int:
        value = float(value)
    of_key = next((type(one) for one in right if one != ""), None)
    if (
        kind is None or type(value) is not kind
    ):  # the key may have a variable's name where the schema has a number
        return type(value) is of_key and value in right
    if isinstance(value, list) and not any(_elements_fit(value, one, inner) for one in right):
        return False
    if of_key is not None and of_key is not kind:
        return value in right
    if isinstance(value, dict):
        return any(_is_dict(value, one) for one in right if one != "")
    if isinstance(value, list) and inner is dict:
        return any(_are_dicts(value, one) for one in right)
    return _plain(value) in [_plain(one) for one in right]


def _elements_fit(values: list[Any], right: Any, inner: type | None) -> bool:
    """Whether the elements are of the schema's type, or of the one that the key's first element has."""
    if inner is None or not isinstance(right, list):
        return True
    of_key = next((type(one) for one in right if one != ""), None)
    return all(type(one) in (inner, of_key) for one in values)


def _is_dict(value: Any, right: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(right, dict):
        return False
    for name, own in value.items():
        if name not in right or _text(own) not in [_text(one) for one in right[name]]:
            return False
    return all(name in value or "" in values for name, values in right.items())


def _are_dicts(values: list[Any], right: Any) -> bool:
    if not isinstance(right, list) or len(values) != len(right):
        return False
    return all(_is_dict(value, one) for value, one in zip(values, right, strict=True))


def _plain(value: Any) -> Any:
    return [_text(one) for one in value] if isinstance(value, list) else _text(value)


def _text(value: Any) -> Any:
    return _IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value
