"""Does agents/bfcl.py judge as bfcl-eval's own checker does? On the answer keys, and on broken versions of them.

    pip download bfcl-eval --no-deps && unzip bfcl_eval-*.whl -d DIR
    PYTHONPATH=. python benchmarks/bfcl_parity.py DIR

Only bfcl-eval's checker is imported; its table of hosted models, which needs all their clients, is replaced.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import types
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from rerouting.agents.bfcl import bfcl_mismatch
from rerouting.core.records import Call
from rerouting.measures.bfcl import CATEGORIES, question_file


def theirs(folder: str) -> Any:
    """bfcl-eval's `ast_checker`, and its name of Python."""
    sys.path.insert(0, folder)
    stub = types.ModuleType("bfcl_eval.constants.model_config")
    stub.MODEL_CONFIG_MAPPING = defaultdict(lambda: types.SimpleNamespace(underscore_to_dot=False))  # type: ignore[attr-defined]
    for name in ("java", "js"):
        kind = f"{name}_type_converter"
        converter = types.ModuleType(f"bfcl_eval.eval_checker.ast_eval.type_convertor.{kind}")
        setattr(converter, kind, None)  # needs tree-sitter; not for Python
        sys.modules[converter.__name__] = converter
    sys.modules[stub.__name__] = stub
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    return ast_checker, Language.PYTHON


def right(key: dict[str, Any], draw: random.Random) -> Call:
    """A call that the key allows."""
    (name, arguments), *_ = key.items()
    chosen = {argument: draw.choice(values or [""]) for argument, values in arguments.items()}
    return Call(name, {argument: _inner(value, draw) for argument, value in chosen.items() if value != ""})


def _inner(value: Any, draw: random.Random) -> Any:
    if isinstance(value, dict):
        picked = {
            name: draw.choice(one) if isinstance(one, list) and one else one for name, one in value.items()
        }
        return {name: one for name, one in picked.items() if one != ""}
    if isinstance(value, list):
        return [_inner(one, draw) if isinstance(one, dict) else one for one in value]
    return value


def broken(call: Call, draw: random.Random) -> Call:
    """The call with one thing changed."""
    arguments = copy.deepcopy(call.arguments)
    ways = ["name", "more"] + (["less", "value", "type", "letters"] * 2 if arguments else [])
    way = draw.choice(ways)
    if way == "name":
        return Call(call.name + "_x", arguments)
    if way == "more":
        return Call(call.name, arguments | {"extra": 1})
    name = draw.choice(sorted(arguments))
    value = arguments.pop(name)
    if way == "value":
        arguments[name] = (
            value + 1 if isinstance(value, int | float) else [value] if isinstance(value, list) else "zz"
        )
    if way == "type":
        arguments[name] = draw.choice([str(value), [value], {"a": value}, True, 1, 1.0, None, 7.5])
    if way == "letters":
        arguments[name] = f" {value.upper()}-" if isinstance(value, str) else value
    return Call(call.name, arguments)


def main() -> None:
    """Compare them and print how often each verdict was given."""
    folder, draw, counts = sys.argv[1], random.Random(0), Counter[tuple[str, bool, bool]]()
    checker, python = theirs(folder)
    data = Path(folder) / "bfcl_eval" / "data"
    for category in CATEGORIES:
        if category.endswith("irrelevance"):
            continue
        file = question_file(data, category)
        assert file is not None, category
        keys = {
            row["id"]: row["ground_truth"]
            for row in map(json.loads, _lines(data / "possible_answer" / file.name))
        }
        for row in map(json.loads, _lines(file)):
            for attempt in range(12):
                calls = [right(key, draw) for key in keys[row["id"]]]
                if attempt % 2:
                    at = draw.randrange(len(calls))
                    calls[at] = broken(calls[at], draw)
                if attempt == 10:
                    draw.shuffle(calls)
                ours = not bfcl_mismatch(calls, row["function"], keys[row["id"]])
                output = [{call.name: call.arguments} for call in calls]
                try:
                    given = checker(
                        copy.deepcopy(row["function"]), output, keys[row["id"]], python, category, "x"
                    )["valid"]
                except Exception as error:  # it raises on some types, such as None in a dict
                    given = None
                    counts[f"it raised {type(error).__name__}", ours, False] += 1
                    continue
                counts[category, ours, given] += 1
                if ours is not given:
                    sys.stderr.write(f"{row['id']}: ours {ours}, theirs {given}: {output}\n")
    for (category, ours, given), number in sorted(counts.items()):
        sys.stdout.write(f"{category}: ours {ours}, theirs {given}: {number}\n")


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    main()
