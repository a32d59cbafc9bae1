"""Plain values (from YAML, JSON or a command line) to the types that a dataclass declares, and back."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union

from rerouting.core.errors import UserError
from rerouting.core.near import closest, way_out


def convert(value: Any, hint: Any, key: str, where: str = "") -> Any:
    """A plain value as `hint` declares it.

    Args:
        value: from YAML, JSON or a command line; a finished object of the right type passes.
        hint: a resolved type annotation.
        key: dotted name of the option, for the message.
        where: file or command that the value came from, for the message.

    Raises:
        UserError: a value of another type, or a key that the dataclass does not have.
    """
    origin = typing.get_origin(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(value, hint, key, where)
    if origin in (Union, types.UnionType):
        return _union(value, hint, key, where)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in typing.get_args(hint)):
            return value
        raise _mismatch(value, hint, key, where)
    if origin in (list, tuple, Sequence) or hint in (list, tuple):
        return _sequence(value, hint, key, where)
    if origin in (dict, Mapping) or hint is dict:
        return _mapping(value, hint, key, where)
    return _scalar(value, hint, key, where)


def describe(hint: Any) -> str:
    """A type annotation in words for a user."""
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(part) for part in arguments)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if origin in (list, tuple, Sequence) or hint in (list, tuple):
        inner = [part for part in arguments if part is not Ellipsis]
        return f"a list in [brackets], each {describe(inner[0])}" if inner else "a list in [brackets]"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    if hint in words:
        return words[hint]
    if is_dataclass(hint) or origin in (dict, Mapping) or hint is dict:
        return "a mapping of keys to values"
    return "a path" if hint is Path else getattr(hint, "__name__", str(hint))


def field_hints(cls: type) -> dict[str, Any]:
    """Resolved annotations of a dataclass's options; Any where one names a type that is not imported."""
    try:
        hints = typing.get_type_hints(cls)
    except NameError:
        hints = {}
        for entry in fields(cls):
            alone = type(
                "Alone", (), {"__annotations__": {entry.name: entry.type}, "__module__": cls.__module__}
            )
            try:
                hints |= typing.get_type_hints(alone)
            except NameError:
                hints[entry.name] = Any
    return {entry.name: hints[entry.name] for entry in options_of(cls)}


def options_of(cls: type) -> list[Field[Any]]:
    """The fields that can be given."""
    return [entry for entry in fields(cls) if entry.init]


def plain(value: Any) -> Any:
    """An object as dicts, lists, text, numbers, booleans and None, with dataclass fields in their order.

    A field whose metadata has `left_out_when_empty` is left out where it is empty.
    """
    if is_dataclass(value) and not isinstance(value, type):
        entries = [(entry, getattr(value, entry.name)) for entry in options_of(type(value))]
        return {
            entry.name: plain(item)
            for entry, item in entries
            if item or not entry.metadata.get("left_out_when_empty")
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    return str(value) if isinstance(value, Path) else value


def name_alone(hint: Any) -> bool:
    """Whether a bare text may stand for this dataclass: it means its field `name`."""
    return isinstance(hint, type) and is_dataclass(hint) and "name" in field_hints(hint)


def _dataclass(value: Any, hint: type, key: str, where: str) -> Any:
    if isinstance(value, hint):
        return value
    value = {} if value is None else value
    if isinstance(value, str) and name_alone(hint):
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise _mismatch(value, hint, key, where)
    hints = field_hints(hint)
    for name in value:
        if name not in hints:
            raise unknown_key(str(name), hint, key, where)
    given = {name: convert(item, hints[name], _join(key, name), where) for name, item in value.items()}
    for entry in options_of(hint):
        if entry.name not in given and entry.default is MISSING and entry.default_factory is MISSING:
            raise UserError(f"{_prefix(where)}{_join(key, entry.name)} is missing", "give it a value")
    try:
        return hint(**given)
    except ValueError as error:
        raise UserError(f"{_prefix(where)}{key or hint.__name__}: {error}") from error


def unknown_key(name: str, hint: type, key: str, where: str) -> UserError:
    """The error for a key that a dataclass does not have, with near misses from its sections too."""
    hints = field_hints(hint)
    problem = f"{_prefix(where)}unknown key {_join(key, name)}"
    deeper = None if key or closest(name, hints) else closest(name, dotted_keys(hint))
    return UserError(problem, f"did you mean {deeper}?" if deeper else way_out(name, hints))


def dotted_keys(cls: type, prefix: str = "") -> list[str]:
    """Every option of a dataclass and of the dataclasses in it, as `losses.reroute.name`."""
    keys = []
    for name, hint in field_hints(cls).items():
        nested = is_dataclass(hint) and isinstance(hint, type)
        keys += dotted_keys(hint, f"{prefix}{name}.") if nested else [prefix + name]
    return keys


def _union(value: Any, hint: Any, key: str, where: str) -> Any:
    members = typing.get_args(hint)
    for member in members:
        if isinstance(member, type) and type(value) is member:
            return convert(value, member, key, where)
    real = [member for member in members if member is not type(None)]
    if len(real) == 1 and is_dataclass(real[0]):
        return convert(value, real[0], key, where)
    for member in real:
        try:
            return convert(value, member, key, where)
        except UserError:
            continue
    raise _mismatch(value, hint, key, where)


def _sequence(value: Any, hint: Any, key: str, where: str) -> Any:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise _mismatch(value, hint, key, where)
    arguments = typing.get_args(hint)
    as_tuple = (typing.get_origin(hint) or hint) is tuple
    if as_tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            problem = f"{_prefix(where)}{key} takes {len(arguments)} values, got {len(value)}"
            raise UserError(problem, f"give {', '.join(describe(part) for part in arguments)}")
        inner = arguments
    else:
        inner = (arguments[0] if arguments else Any,) * len(value)
    items = [convert(item, inner[at], f"{key}[{at}]", where) for at, item in enumerate(value)]
    return tuple(items) if as_tuple else items


def _mapping(value: Any, hint: Any, key: str, where: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _mismatch(value, hint, key, where)
    named, inner = typing.get_args(hint) or (Any, Any)
    return {
        convert(name, named, f"a key of {key}", where): convert(item, inner, _join(key, str(name)), where)
        for name, item in value.items()
    }


def _scalar(value: Any, hint: Any, key: str, where: str) -> Any:
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint is float:
        return _number(value, hint, key, where)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint in (int, str, bool, type(None)):
        if type(value) is hint:
            return value
        raise _mismatch(value, hint, key, where)
    try:
        fits = hint is Any or isinstance(value, hint)
    except TypeError:  # a protocol or another hint that cannot be checked
        fits = True
    if not fits:
        raise _mismatch(value, hint, key, where)
    return value


def _number(value: Any, hint: Any, key: str, where: str) -> float:
    if not isinstance(value, bool) and isinstance(value, (int, float, str)):
        try:
            return float(value)  # text too: YAML 1.1 reads 1e-4 as text
        except (ValueError, OverflowError):
            pass
    raise _mismatch(value, hint, key, where)


def _mismatch(value: Any, hint: Any, key: str, where: str) -> UserError:
    choices = [str(part) for part in typing.get_args(hint)] if typing.get_origin(hint) is Literal else []
    near = closest(str(value), choices)
    return UserError(
        f"{_prefix(where)}{key or 'the whole'}: expected {describe(hint)}, got {_short(value)}",
        f"did you mean {near}?" if near else "",
    )


def _short(value: Any) -> str:
    shown = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "…"


def _prefix(where: str) -> str:
    return f"{where}: " if where else ""


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
