"""One dataclass, four faces: object, YAML, command line, --help.

Values win in this order: dataclass defaults < recipe < --config file < command line. Mappings are merged, and
lists replaced. jsonargparse makes options and help from the dataclass; conversion.py checks every value.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jsonargparse
import yaml

from rerouting.core.conversion import convert, field_hints, name_alone, plain
from rerouting.core.errors import UserError
from rerouting.core.layering import (
    check,
    defaults,
    hint_at,
    is_section,
    leaves,
    merged,
    section_lists,
    sections,
    under,
)
from rerouting.core.near import closest
from rerouting.core.recipes import recipe_path

Config = TypeVar("Config")
COMMAND_LINE = "command line"

jsonargparse.set_parsing_settings(
    docstring_parse_attribute_docstrings=True, instantiate_subclass_spec_in_any=False
)


def load_config(cls: type[Config], recipe: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """An object of `cls` from its defaults, a YAML file, and options as on the command line.

    Raises:
        UserError: an unreadable file, an unknown key, or a value of the wrong type.
    """
    if not overrides:
        return from_mapping(cls, load_mapping(recipe) if recipe else {}, str(recipe or ""))
    parser = Parser(prog="rerouting", add_help=False)
    add_config_arguments(parser, cls)
    return config_from(parser.parse_args([*(["--recipe", str(recipe)] if recipe else []), *overrides]), cls)


def from_mapping(cls: type[Config], mapping: Mapping[str, Any], where: str) -> Config:
    """An object of `cls` from plain values; `where` is named in every error.

    Raises:
        UserError: an unknown key, a missing one, or a value of the wrong type.
    """
    check(mapping, cls, where)
    config: Config = convert(merged(defaults(cls), mapping, cls), cls, "", where)
    return config


def load_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, empty for an empty file.

    Raises:
        UserError: no such file, not YAML, a key given twice, or something else than a mapping.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text", "give a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(
            f"{place}: not YAML: {getattr(error, 'problem', None) or error}",
            "mend that line; a text that holds any of : # ? { } [ ] or a comma goes in quotes",
        ) from error
    if found is not None and not isinstance(found, dict):
        raise UserError(
            f"{path} holds a {type(found).__name__}", "a configuration is a mapping of keys to values"
        )
    return found or {}


def dump_yaml(config: Any) -> str:
    """A config as YAML, every field in the order of its dataclass; `load_mapping` reads it back."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True, width=100)


class Parser(jsonargparse.ArgumentParser):
    """An argument parser that raises `UserError`s with near misses, and that layers recipe and --config."""

    config_class: type | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self._given: list[str] = []

    def parse_args(
        self,
        args: Any = None,
        namespace: Any = None,
        env: bool | None = None,
        defaults: bool = True,
        **kwargs: Any,
    ) -> Any:
        """As argparse's, after the recipe and the --config files have become the defaults."""
        self._given = list(sys.argv[1:] if args is None else args)
        if self.config_class is not None:
            self._given = self._layer(self.config_class, self._given)
        return super().parse_args(self._given, namespace, env, defaults, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the `UserError` that says what was given and what is allowed."""
        if not self.exit_on_error:  # a parser that jsonargparse made for itself
            super().error(message, ex)
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            raise self._unknown_option(unknown[1]) from ex
        missing = re.match(r"the following arguments are required: (.+)", message)
        if missing:
            actions = getattr(getattr(self, "_subcommands_action", None), "choices", None) or ()
            names = [
                name.partition(".")[2] if name.partition(".")[0] in actions else name
                for name in missing[1].split(", ")
            ]
            raise UserError(f"missing: {', '.join(f'--{name}' for name in names)}", "give it a value") from ex
        key = re.match(r'(?:Parser key|argument) "?-*([\w.]+)', message)
        hint = hint_at(self.config_class, key[1]) if key and self.config_class else None
        if key and hint is not None:
            for value in self._values_of(key[1]):
                convert(value, hint, f"--{key[1]}")
        flat = re.sub(r"<class '([\w.]+)'>", r"\1", " ".join(message.split()))
        flat = re.sub(r'^Parser key "([\w.]+)": ', r"--\1: ", flat).removeprefix("argument ")
        raise UserError(flat, f"{self.prog} --help lists the options") from ex

    def _unknown_option(self, given: str) -> UserError:
        name = given.partition("=")[0]
        known = [
            option[2:] for action in self._actions for option in action.option_strings if option[:2] == "--"
        ]
        near = closest(name.lstrip("-"), [option for option in known if option != "help"])
        if not name.startswith("-"):
            return UserError(f"unexpected argument {given!r}", f"{self.prog} --help lists the options")
        hint = f"did you mean --{near}?" if near else f"{self.prog} --help lists the options"
        return UserError(f"unknown option {name}", hint)

    def _layer(self, cls: type, given: list[str]) -> list[str]:
        """Make recipe, --config files and newly chosen names the defaults; returns the other arguments."""
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        first.add_argument("--recipe", default=self.get_default("recipe"))
        first.add_argument("--config", action="append", default=[])
        try:
            known, _ = first.parse_known_args(given)
        except argparse.ArgumentError as error:
            self.error(str(error), error)
        files = [recipe_path(known.recipe)] if known.recipe and "recipe" not in field_hints(cls) else []
        layers = [(load_mapping(file), str(file)) for file in [*files, *map(Path, known.config)]]
        given, chosen = _take_sections(cls, given)
        values = defaults(cls)
        for layer, where in [*layers, *chosen]:
            check(layer, cls, where)
            values = merged(values, layer, cls)
        known_values = dict(leaves(values, cls))
        self.set_defaults(known_values)
        for action in self._actions:
            action.required = action.required and action.dest not in known_values
        return given

    def _values_of(self, key: str) -> Iterator[Any]:
        for at, argument in enumerate(self._given):
            option, equals, value = argument.partition("=")
            if option == f"--{key}" and (equals or at + 1 < len(self._given)):
                yield _from_text(value if equals else self._given[at + 1])


def add_config_arguments(parser: jsonargparse.ArgumentParser, cls: type, recipe: str | None = None) -> None:
    """Add --recipe, --config and one option for every field of `cls`, with its help and default.

    A field `recipe` is an option like the others: then no recipe is beneath them.

    Args:
        parser: the `Parser` that a verb is given.
        cls: a dataclass whose fields carry their help text as string literals beneath them.
        recipe: the recipe that is taken when the user names none.
    """
    assert isinstance(parser, Parser), "main hands out Parser objects"
    parser.config_class = cls
    parser.usage = "%(prog)s [options]"
    if "recipe" not in field_hints(cls):
        parser.add_argument(
            "--recipe",
            type=str | None,
            default=recipe,
            metavar="NAME",
            help="A recipe's name, or a YAML file.",
        )
    parser.add_argument(
        "--config", type=str, action="append", metavar="FILE",
        help="A YAML file whose keys win over the recipe's; options on the command line win over both.",
    )  # fmt: skip
    parser.add_class_arguments(cls, None)
    for action in parser._actions:
        hint = hint_at(cls, action.dest)
        if is_section(hint):
            action.metavar = "NAME" if name_alone(hint) else "MAPPING"
            action.help = (
                "Its name, a YAML mapping, or its file."
                if name_alone(hint)
                else "A YAML mapping, or its file."
            )


def config_from(args: jsonargparse.Namespace, cls: type[Config]) -> Config:
    """The config among the parsed arguments of a verb."""
    values = args.as_dict()
    return from_mapping(cls, {name: values[name] for name in field_hints(cls)}, COMMAND_LINE)


def _take_sections(cls: type, given: list[str]) -> tuple[list[str], list[tuple[dict[str, Any], str]]]:
    """Take whole sections and lists of components out of the arguments, as layers.

    Such are `--losses.reroute rmu`, `--losses x.yaml`, `--data.retain "[bundled]"`.
    """
    known = dict(sections(cls))
    lists = dict(section_lists(cls))
    rest: list[str] = []
    layers: list[tuple[dict[str, Any], str]] = []
    arguments = iter(given)
    for argument in arguments:
        option, equals, value = argument.partition("=")
        key = option[2:] if option.startswith("--") else ""
        if name_alone(known.get(key.removesuffix(".name"))):
            key = key.removesuffix(".name")
        text = value if equals else next(arguments, None) if key.rstrip("+") in {*known, *lists} else None
        if text is None:
            rest.append(argument)
        elif key.endswith("+") and key[:-1] in lists:
            item = _from_text(text) if text[:1] == "{" else text
            checked = convert([item], lists[key[:-1]], key[:-1], COMMAND_LINE)
            rest += [option, json.dumps(plain(checked)[0])]
        elif key in known and text.endswith((".yaml", ".yml")):
            layers.append((under(key, load_mapping(Path(text))), text))
        elif key in known or key in lists:
            parsed = _from_text(text) if text[:1] in "[{" else text
            layers.append((under(key, {"name": text} if option.endswith(".name") else parsed), COMMAND_LINE))
        else:
            rest.append(argument)
    return rest, layers


def _from_text(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text


class _Loader(yaml.SafeLoader):
    """YAML with 1e-4 read as a number, and without keys given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for at, (key, _) in enumerate(node.value):
            if key.value in names[:at] and key.value != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} twice", key.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
