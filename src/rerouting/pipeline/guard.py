"""Everything that a selection could see, compared with the test data before anything runs (`evaluation.guarding`).

Looked at: the sources that are attacked; what attacks that never look at the model would send; the sources of every
measure, its defaults included; every file or folder of texts that an option of an attack or a measure names; and the
training and held-out sources of every trial. Not seen: what a component's own code reads, and models.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from rerouting.core.config import load_config
from rerouting.core.conversion import convert, plain
from rerouting.core.errors import UserError
from rerouting.core.files import sha256_of
from rerouting.core.finder import Component, available, build
from rerouting.core.recipes import recipe_path
from rerouting.data.config import DataConfig, SourceConfig
from rerouting.data.loading import chats_of
from rerouting.data.reading import SUFFIXES, read_rows
from rerouting.evaluation.guarding import TestData, refused
from rerouting.evaluation.select_config import SelectConfig
from rerouting.pipeline import attack_setup
from rerouting.pipeline.trial import attacks_of, run_config
from rerouting.training.config import RunConfig

STREAMS = ("circuit_breaker", "retain", "held_out_harmful", "held_out_benign")
LINES = (".txt", ".md", ".yaml", ".yml", ".py")
Found = Iterator[tuple[str, SourceConfig]]


def guard(config: SelectConfig, data: Sequence[DataConfig]) -> None:
    """Refuse test data, wherever it could come in.

    Args:
        config: the selection.
        data: of every trial.

    Raises:
        UserError: names the option, the request and its test set; or a measure that does not name its data, or an
            attack that there is not.
    """
    test = _test_data(config)
    attacks = attacks_of(config, Path())
    measures = {
        name: build("measures", Component(name, config.measure_options.get(name, {})))
        for name in config.measures
    }
    given = [*_attacked(config), *_measured(measures)]
    for one in data:
        given += [(f"data.{name}", source) for name in STREAMS for source in getattr(one, name)]
    seen = set[str]()
    for where, source in given:
        mark = sha256_of(plain([source.name, source.options]))
        if mark not in seen:
            test.refuse(where, source)
        seen.add(mark)
    built, _ = attack_setup.attacks(attacks)
    for where, value in [
        *((f"attack_options.{name}", attack) for name, attack in built.items()),
        *((f"measure_options.{name}", measure) for name, measure in measures.items()),
    ]:
        for file in files_in(value):
            refuse_file(test, where, file)
    chats = attack_setup.behaviours(attacks)
    for name, attack in built.items():
        if not hasattr(attack, "run"):
            sent = attack.prompts([chat for _, chat in attack_setup.part_of(attacks, name, attack, chats)])
            for attempt in sent:
                found = test.of_chat(attempt.chat) or test.of_text(attempt.prefill)
                if found:
                    raise refused(f"attacks: {name}", f"what it sends for {attempt.chat.id}", found)


def _test_data(config: SelectConfig) -> TestData:
    """With what the recipe evaluates on, as it is and as the selection changes it."""
    test = TestData.known()
    recipe = load_config(RunConfig, recipe_path(config.run))
    for run in (recipe, run_config(config, {})):
        for one in run.evaluation.sets:
            test.add(f"the evaluation set {one.name} of {config.run}", chats_of(one.source))
    return test


def _attacked(config: SelectConfig) -> Found:
    for at, source in enumerate(config.sources):
        yield f"sources[{at}]", source


def _measured(measures: Mapping[str, Any]) -> Found:
    for name, measure in measures.items():
        found = list(sources_in(measure, f"measure_options.{name}"))
        if not found:
            raise UserError(
                f"the measure {name} does not say which data it is on",
                "select by measures whose options name their sources; benchmarks are for the test",
            )
        yield from found


def sources_in(value: Any, where: str) -> Found:
    """Every data source in a component's options, with the name of its option."""
    if isinstance(value, SourceConfig):
        yield where, value
    elif isinstance(value, Mapping) and _is_source(value):
        yield where, convert(value, SourceConfig, where)
    else:
        for name, item in _inside(value):
            yield from sources_in(item, f"{where}{name}")


def files_in(value: Any) -> Iterator[Path]:
    """Every file of texts that a component's options name, those in folders included."""
    if isinstance(value, str | Path):
        path = Path(os.path.expanduser(value))
        if str(value).strip(".~/ ") and path.exists():
            inside = sorted(path.rglob("*")) if path.is_dir() else [path]
            yield from (file for file in inside if file.suffix.lower() in (*SUFFIXES, *LINES))
    else:
        for _, item in _inside(value):
            yield from files_in(item)


def refuse_file(test: TestData, where: str, file: Path) -> None:
    """Raise UserError if any text in a file is test data."""
    texts: Any
    if file.suffix.lower() in LINES:
        texts = file.read_text(encoding="utf-8", errors="replace").split("\n")
    elif file.suffix.lower() == ".json":
        texts = _json(file)
    else:
        texts = [row.values for row in read_rows(str(file))]
    for number, text in enumerate(_texts(texts), start=1):
        found = test.of_text(text)
        if found:
            raise refused(where, f"text {number} of {file}", found)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(
            f"{file} is not JSON: {error}", "mend it: it is compared with the test data"
        ) from error


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from _texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value) and not isinstance(value, type):
        yield from ((f".{entry.name}", getattr(value, entry.name)) for entry in fields(value))
    elif isinstance(value, Mapping):
        yield from ((f".{name}", item) for name, item in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{at}]", item) for at, item in enumerate(value))


def _is_source(value: Mapping[str, Any]) -> bool:
    name = value.get("name")
    own = isinstance(name, str) and (name in available("data.sources") or ".py:" in name)
    return own and set(value) <= {entry.name for entry in fields(SourceConfig)}
