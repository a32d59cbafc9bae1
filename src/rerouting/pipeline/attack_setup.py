"""What an attack matrix is made of: models, behaviours, attacks and judges, all checked before anything is spent."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from rerouting import __version__
from rerouting.core.contracts import Judged
from rerouting.core.errors import UserError
from rerouting.core.files import sha256_of
from rerouting.core.finder import Component, available, build, find
from rerouting.core.records import Chat
from rerouting.data.loading import chats_of, spread
from rerouting.evaluation.attack_config import AttackConfig
from rerouting.pipeline.made_of import check_named, sources_of


@dataclass(frozen=True)
class NamedJudge:
    """A judge, and a text that names it with everything that its verdicts depend on."""

    name: str
    judge: Any
    identity: str


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
    check_named(config.attack_options, names, "attack_options")
    check_named(config.cases, names, "cases")
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


def drop_image_attacks(config: AttackConfig, found: dict[str, Any], skipped: dict[str, str]) -> None:
    """Of attacks by a picture, leave out those that only "all" named: the model takes none.

    Raises:
        UserError: one was named itself.
    """
    for name in [name for name, attack in found.items() if getattr(attack, "needs_images", False)]:
        if name in config.attacks:
            raise UserError(
                f"{name} needs pictures, and the model takes none", "take a vision-language model"
            )
        del found[name]
        skipped[name] = "the model takes no pictures"


def judges(config: AttackConfig) -> list[NamedJudge]:
    """The judges with their options, the deciding one first; each has judged once, so that a missing model shows now.

    Raises:
        UserError: none or an unknown one was named, or one cannot judge.
    """
    check_named(config.judge_options, config.judges, "judge_options")
    if not config.judges:
        raise UserError("no judge was named", "give one: --judges '[\"local\"]'")
    found = []
    for name in dict.fromkeys(config.judges):
        options = config.judge_options.get(name, {})
        judge = build("judges", Component(name, options))
        if not hasattr(judge, "verdicts"):
            raise UserError(f"{name} has no method `verdicts`", "see docs/adding_a_judge.md")
        used = [__version__, name, options, getattr(judge, "version", ""), sources_of(name, options)]
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
    used: list[Any] = [name, options, sources_of(name, options), config.seed, config.answer_tokens]
    used += [config.assistant, config.assistant_options]
    used += sources_of(config.assistant, config.assistant_options)
    if config.translator:
        used += [config.translator, config.translator_options]
        used += sources_of(config.translator, config.translator_options)
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
