"""What an attack matrix is made of: models, behaviours, attacks and judges, all checked before anything is spent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from rerouting import __version__
from rerouting.core.contracts import Judged
from rerouting.core.errors import UserError
from rerouting.core.files import sha256_file, sha256_of
from rerouting.core.finder import Component, available, build, find
from rerouting.core.near import way_out
from rerouting.core.records import Chat
from rerouting.core.rundir import is_run
from rerouting.evaluation.attack_config import AttackConfig
from rerouting.models.digest import weights_digest
from rerouting.models.loading import LoadedModel, load
from rerouting.pipeline.answer import models_of
from rerouting.pipeline.evaluate import spread
from rerouting.pipeline.prepare import chats_of

MODELS = ("base", "rerouted")


@dataclass(frozen=True)
class NamedJudge:
    """A judge, and a text that names it with everything that its verdicts depend on."""

    name: str
    judge: Any
    identity: str


def models(config: AttackConfig) -> dict[str, LoadedModel]:
    """Base and rerouted model: a run's, or two that were named.

    Raises:
        UserError: neither can be had, or they do not share a vocabulary.
    """
    if config.base is None:
        return dict(zip(MODELS, models_of(Path(config.model)), strict=True))
    if is_run(Path(config.model)):
        raise UserError(f"{config.model} is a run, which knows its base", "leave base out")
    base, rerouted = load(config.base), load(replace(config.base, name=config.model, revision=None))
    if base.tokenizer.get_vocab() != rerouted.tokenizer.get_vocab():
        raise UserError(
            f"{config.base.name} and {config.model} do not share a vocabulary", "name the right base"
        )
    return dict(zip(MODELS, (base, rerouted), strict=True))


def digest(loaded: LoadedModel) -> str:
    """Names a model by its weights, or by its hub name where they are not at hand."""
    if loaded.base_model_path is None:
        return sha256_of(loaded.name)
    return weights_digest(loaded.base_model_path)


def behaviours(config: AttackConfig) -> list[tuple[str, Chat]]:
    """Every behaviour with the name of its set.

    Raises:
        UserError: two behaviours of one id.
    """
    pairs = []
    for source in config.sources:
        chats = spread(chats_of(source), config.limit)
        pairs += [(source.name, chat) for chat in chats]
    ids = [chat.id for _, chat in pairs]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise UserError(f"two behaviours have the id {twice}", "give each source once, and ids that differ")
    return pairs


def attacks(config: AttackConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """The attacks with their options, and those of "all" that cannot run, with the reason.

    Raises:
        UserError: none or an unknown one was named, or there are options for one that was not.
    """
    every = available("attacks") if "all" in config.attacks else ()
    names = list(dict.fromkeys([*(name for name in config.attacks if name != "all"), *every]))
    _known(config.attack_options, names, "attack_options")
    _known(config.cases, names, "cases")
    found, skipped = {}, {}
    for name in names:
        try:
            found[name] = _with_budget(name, config)
        except UserError as error:
            if name in config.attacks:
                raise
            skipped[name] = str(error)
    if not found:
        raise UserError("no attack was named", f"choose from: all, {', '.join(available('attacks'))}")
    return found, skipped


def judges(config: AttackConfig) -> list[NamedJudge]:
    """The judges with their options, the deciding one first; each has judged once, so that a missing model shows now.

    Raises:
        UserError: none or an unknown one was named, or one cannot judge.
    """
    _known(config.judge_options, config.judges, "judge_options")
    if not config.judges:
        raise UserError("no judge was named", "give one: --judges '[\"local\"]'")
    found = []
    for name in dict.fromkeys(config.judges):
        options = config.judge_options.get(name, {})
        judge = build("judges", Component(name, options))
        if not hasattr(judge, "verdicts"):
            raise UserError(f"{name} has no method `verdicts`", "see docs/adding_a_judge.md")
        used = [__version__, name, options, getattr(judge, "version", ""), _sources(name, options)]
        mark = sha256_of(used)[:8]
        found.append(NamedJudge(name, judge, f"{Path(name.rpartition(':')[0]).stem or name}-{mark}"))
    for one in found:
        one.judge.verdicts(
            [Judged("Explain how to bake a cake.", "Mix flour, sugar and eggs, and bake them.")]
        )
    return found


def part_of(
    config: AttackConfig, name: str, attack: Any, chats: list[tuple[str, Chat]]
) -> list[tuple[str, Chat]]:
    """The behaviours that an attack is run on: as many as its budget allows, spread evenly."""
    limits: dict[str, int | None] = getattr(attack, "cases", {})
    return spread(chats, config.cases[name] if name in config.cases else limits.get(config.budget))


def case_name(config: AttackConfig, name: str, attack: Any, model: str) -> str:
    """Names an attack's cases on a model: other options, code, files, seed or length of answers make others."""
    options = asdict(attack) if is_dataclass(attack) and not isinstance(attack, type) else {}
    used: list[Any] = [name, options, _sources(name, options), config.seed, config.answer_tokens]
    used += [config.assistant, config.assistant_options]
    used += _sources(config.assistant, config.assistant_options)
    if config.translator:
        used += [config.translator, config.translator_options]
        used += _sources(config.translator, config.translator_options)
    return f"{name.rpartition(':')[2]}-{sha256_of(used)[:8]}.{model}"


def _with_budget(name: str, config: AttackConfig) -> Any:
    """The attack with the options of its budget, the matrix's seed, and the user's options over them."""
    found = find("attacks", name)
    options = dict(getattr(found, "budgets", {}).get(config.budget, {}))
    if isinstance(found, type) and is_dataclass(found) and "seed" in {field.name for field in fields(found)}:
        options["seed"] = config.seed
    attack = build("attacks", Component(name, options | config.attack_options.get(name, {})))
    if not (hasattr(attack, "run") or hasattr(attack, "prompts")):
        raise UserError(f"{name} has no method `run` or `prompts`", "see docs/adding_an_attack.md")
    return attack


def _known(given: Iterable[str], names: Iterable[str], field: str) -> None:
    names = list(names)
    for name in given:
        if name not in names:
            raise UserError(
                f"{field} names {name!r}, which is not asked for", way_out(name, names, "asked for")
            )


def _sources(name: str, options: dict[str, Any]) -> list[str]:
    """Hashes of files that a component depends on: its own, if it is the user's, and those that its options name."""
    found = []
    for text in _texts([name, options]):
        path, colon, _ = text.rpartition(":")
        file = os.path.expanduser(path if colon and path.endswith(".py") else text)
        if os.path.isfile(file):  # False for what can be no path
            found.append(sha256_file(Path(file)))
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
