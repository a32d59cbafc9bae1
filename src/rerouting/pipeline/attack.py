"""The attack matrix of a run: attack both models, judge every answer, write one table. Goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import accelerate

from rerouting.core.config import dump_yaml
from rerouting.core.contracts import Judged, Resources, Verdict
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, sha256_of, write_jsonl
from rerouting.core.finder import Component, available, build, find
from rerouting.core.manifest import environment
from rerouting.core.records import Chat
from rerouting.evaluation.attack_config import AttackConfig
from rerouting.evaluation.attacking import Shard, attack_model
from rerouting.evaluation.cases import CaseFile, answered
from rerouting.evaluation.judging import Scorer, label_of, verdict_file, verdicts_of
from rerouting.models.digest import weights_digest
from rerouting.models.loading import LoadedModel
from rerouting.pipeline.answer import models_of
from rerouting.pipeline.evaluate import spread
from rerouting.pipeline.prepare import chats_of
from rerouting.pipeline.reviewed import write_summary
from rerouting.targets.target import Target

MODELS = ("base", "rerouted")
Row = dict[str, Any]


def attack_run(config: AttackConfig, out: Path) -> Row:
    """Make or go on with the matrix in `out`.

    Returns:
        What summary.json holds: the rates of every attack on this configuration's behaviours.

    Raises:
        UserError: no such run, attack, judge or behaviours; finished cases stay.
    """
    patience = {"timeout": timedelta(days=7)}  # shards take unequal time
    state = accelerate.PartialState(cpu=not accelerate.utils.is_cuda_available(), **patience)
    shard = Shard(state.process_index, state.num_processes, state.wait_for_everyone)
    chats = behaviours(config)
    attacks, skipped = chosen(config)
    judges = judges_of(config)
    pair = dict(zip(MODELS, models_of(Path(config.model)), strict=True))
    digests = {model: _digest(pair[model]) for model in MODELS}
    if state.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / "config.yaml", dump_yaml(config))
        atomic_write(out / "manifest.json", json.dumps({"models": digests} | environment(), indent=2) + "\n")
    files = {}
    for name, attack in attacks.items():
        part = spread(chats, _count(config, name, attack))
        for model in MODELS:
            files[name, model] = case_file(
                config, name, attack, out, f"{model}-{digests[model][:8]}", shard.rank
            )
            attack_model(
                f"{name} on {model}",
                attack,
                Target(pair[model], config.answer_tokens),
                part,
                resources(config, judges[config.judges[0]], out),
                files[name, model],
                shard,
            )
    shard.wait()
    summary: Row = {}
    if state.is_main_process:
        by_id = {chat.id: chat for _, chat in chats}
        cases = {
            key: [row for row in file.rows().values() if row["id"] in _ids(config, key[0], attacks, chats)]
            for key, file in files.items()
        }
        scorer = Scorer(pair["base"], config.answer_tokens, out / f"likelihoods-{digests['base'][:8]}.jsonl")
        judge_all(cases, by_id, scorer, judges, config, out)
        summary = write_results(cases, skipped, config, out)
    shard.wait()
    return summary


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


def chosen(config: AttackConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """The attacks with their options, and those of "all" that cannot run, with the reason."""
    every = "all" in config.attacks
    names = list(
        dict.fromkeys([*(n for n in config.attacks if n != "all"), *(available("attacks") if every else ())])
    )
    attacks, skipped = {}, {}
    for name in names:
        try:
            attacks[name] = with_budget(name, config)
        except UserError as error:
            if name in config.attacks:
                raise
            skipped[name] = str(error)
    if not attacks:
        raise UserError("no attack was named", f"choose from: all, {', '.join(available('attacks'))}")
    return attacks, skipped


def judges_of(config: AttackConfig) -> dict[str, Any]:
    """The judges with their options, the deciding one first.

    Raises:
        UserError: none was named, or one cannot judge.
    """
    judges = {
        name: build("judges", Component(name, config.judge_options.get(name, {}))) for name in config.judges
    }
    if not judges:
        raise UserError("no judge was named", "give one: --judges '[\"local\"]'")
    for name, judge in judges.items():
        if not hasattr(judge, "verdicts"):
            raise UserError(f"{name} has no method `verdicts`", "see docs/adding_a_judge.md")
    return judges


def with_budget(name: str, config: AttackConfig) -> Any:
    """The attack with the options of its budget, and the user's over them."""
    budgets = getattr(find("attacks", name), "budgets", {})
    options = budgets.get(config.budget, {}) | config.attack_options.get(name, {})
    attack = build("attacks", Component(name, options))
    if not (hasattr(attack, "run") or hasattr(attack, "prompts")):
        raise UserError(f"{name} has no method `run` or `prompts`", "see docs/adding_an_attack.md")
    return attack


def case_file(config: AttackConfig, name: str, attack: Any, out: Path, model: str, rank: int) -> CaseFile:
    """Where the cases go: another option, seed or length of answers is another file."""
    options = asdict(attack) if is_dataclass(attack) and not isinstance(attack, type) else {}
    used = [options, config.seed, config.answer_tokens, config.assistant, config.assistant_options]
    used += [config.translator, config.translator_options] if config.translator else []
    label = name.rpartition(":")[2]
    return CaseFile(out, f"{label}-{sha256_of(used)[:8]}.{model}", rank)


def resources(config: AttackConfig, judge: Any, out: Path) -> Resources:
    """What attacks may use; the assistant is loaded when it is first asked."""
    assistant = build("targets.assistants", Component(config.assistant, config.assistant_options))
    translator = (
        build("targets.translators", Component(config.translator, config.translator_options))
        if config.translator
        else None
    )
    return Resources(config.seed, judge.verdicts, assistant, translator, folder=out)


def judge_all(
    cases: dict[tuple[str, str], list[Row]],
    chats: dict[str, Chat],
    scorer: Scorer,
    judges: dict[str, Any],
    config: AttackConfig,
    out: Path,
) -> None:
    """Write verdicts and label into every answered attempt, in place."""
    flat = answered([case for rows in cases.values() for case in rows])
    asked = [Judged(case["behaviour"], attempt["answer"], case["context"]) for case, attempt in flat]
    judged = scorer.measured([chats[case["id"]] for case, _ in flat], asked)
    for (_, attempt), one in zip(flat, judged, strict=True):
        attempt["label"], attempt["label_reason"] = label_of(one)
        attempt["verdicts"] = {}
    for name, judge in judges.items():
        file = verdict_file(out, name, judge, config.judge_options.get(name, {}))
        verdicts: list[Verdict] = verdicts_of(name, judge, judged, file)
        for (_, attempt), verdict in zip(flat, verdicts, strict=True):
            attempt["verdicts"][name] = asdict(verdict)


def write_results(
    cases: dict[tuple[str, str], list[Row]], skipped: dict[str, str], config: AttackConfig, out: Path
) -> Row:
    """results.jsonl (one attempt a line), summary.json, and the table in three formats."""
    lines = []
    for (name, model), rows in cases.items():
        for case in rows:
            shared = {key: value for key, value in case.items() if key != "attempts"}
            for at, attempt in enumerate(case["attempts"]):
                key = f"{name}/{model}/{case['id']}/{at}"
                lines.append({"key": key, "attack": name, "model": model} | shared | attempt)
    write_jsonl(out / "results.jsonl", lines)
    attacks: Row = {name: {} for name, _ in cases}
    attacks |= {name: {"skipped": reason} for name, reason in skipped.items()}
    summary = {"model": config.model, "budget": config.budget, "judge": config.judges[0], "attacks": attacks}
    write_summary(summary, cases, out)
    return summary


def _count(config: AttackConfig, name: str, attack: Any) -> int | None:
    if name in config.cases:
        return config.cases[name]
    limits: dict[str, int | None] = getattr(attack, "cases", {})
    return limits.get(config.budget)


def _ids(config: AttackConfig, name: str, attacks: dict[str, Any], chats: list[tuple[str, Chat]]) -> set[str]:
    return {chat.id for _, chat in spread(chats, _count(config, name, attacks[name]))}


def _digest(loaded: LoadedModel) -> str:
    if loaded.base_model_path is None:
        return sha256_of(loaded.name)
    return weights_digest(loaded.base_model_path)
