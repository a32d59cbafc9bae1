"""The attack matrix: both models attacked, every answer judged, the table written after each attack.

It goes on where it stopped. Finished attacks of the same folder that are not asked for this time stay in the table,
judged as the others are.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import accelerate

from rerouting import __version__
from rerouting.core.attempt import behaviour_of, context_of
from rerouting.core.config import dump_yaml
from rerouting.core.contracts import Judged, Resources
from rerouting.core.conversion import plain
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write, read_jsonl, write_jsonl
from rerouting.core.finder import Component, build
from rerouting.core.findings import MODELS
from rerouting.core.manifest import environment
from rerouting.core.prompts import takes_pictures
from rerouting.core.records import Chat
from rerouting.core.rundir import hold
from rerouting.evaluation.attack_config import AttackConfig
from rerouting.evaluation.attacking import Shard, attack_model, fit_folder
from rerouting.evaluation.cases import CASE_FIELDS, CaseFile, answered, asked, turns_of
from rerouting.evaluation.judging import LoopJudge, Scorer, VerdictFile, label_of, verdicts_of
from rerouting.models.loading import LoadedModel
from rerouting.pipeline import attack_setup as setup
from rerouting.pipeline.pair import digest, pair_of
from rerouting.pipeline.reviewed import cases_of, write_summary
from rerouting.targets.target import Target
from rerouting.training.processes import leave_at_exit

Row = dict[str, Any]
Cases = dict[tuple[str, str], list[Row]]
SAME = ("model", "base", "budget", "sources", "limit", "max_new_tokens", "seed")
"""What one table's attacks must share."""


def attack_run(config: AttackConfig, out: Path) -> Row:
    """Make or go on with the matrix in `out`.

    Returns:
        What summary.json holds; empty in all but the main process.

    Raises:
        UserError: no such run, attack, judge or behaviours, or a folder with another matrix; finished cases stay.
    """
    patience = {"timeout": timedelta(days=7)}  # shards take unequal time
    state = accelerate.PartialState(cpu=not accelerate.utils.is_cuda_available(), **patience)
    leave_at_exit()
    with ExitStack() as held:
        if state.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold(out, ".attack.lock"))
        matrix = _Matrix(
            config, out, Shard(state.process_index, state.num_processes, state.wait_for_everyone)
        )
        matrix.begin()
        matrix.shard.wait()
        for name in matrix.attacks:
            for model in MODELS:
                matrix.attack(name, model)
            if state.is_main_process:
                matrix.write()
            matrix.shard.wait()
        return matrix.summary


@dataclass
class _Matrix:
    """The state of one process's work on a matrix."""

    config: AttackConfig
    out: Path
    shard: Shard
    cases: Cases = field(default_factory=dict)
    fits: dict[str, dict[str, Row]] = field(default_factory=dict)
    summary: Row = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.config
        self.chats = setup.behaviours(config)
        self.attacks, self.skipped = setup.attacks(config)
        self.judges = setup.judges(config)
        self.pair: dict[str, LoadedModel] = pair_of(config.model, config.base)
        if not takes_pictures(self.pair["base"].tokenizer):
            setup.drop_image_attacks(self.config, self.attacks, self.skipped)
        self.digests = {model: digest(loaded) for model, loaded in self.pair.items()}
        tokens, base = config.answer_tokens, self.pair["base"]
        self.scorer = Scorer(
            base, tokens, self.out / "likelihoods" / self.digests["base"][:8], self.shard.rank
        )
        self.targets = {model: Target(loaded, tokens) for model, loaded in self.pair.items()}
        requests = {(behaviour_of(chat), context_of(chat)): chat for _, chat in self.chats}
        self.loop_judge = LoopJudge(self.judges[0].judge, self.scorer, requests)

    def begin(self) -> None:
        """Refuse a folder with another matrix; take over its finished attacks; write what this one is made of."""
        if self.shard.rank:
            return
        made_of = {name: plain(getattr(self.config, name)) for name in SAME} | {"models": self.digests}
        made_of["rerouting"] = __version__
        known = _read(self.out / "matrix.json")
        if known and known["made_of"] != made_of:
            differ = [name for name in made_of if known["made_of"].get(name) != made_of[name]]
            raise UserError(
                f"{self.out} holds another matrix ({', '.join(differ)} differ)",
                "name another folder with --out",
            )
        atomic_write(self.out / "matrix.json", json.dumps({"made_of": made_of}, indent=2) + "\n")
        atomic_write(self.out / "config.yaml", dump_yaml(self.config))
        atomic_write(
            self.out / "manifest.json", json.dumps({"models": self.digests} | environment(), indent=2) + "\n"
        )
        if (self.out / "results.jsonl").exists():
            earlier = cases_of(read_jsonl(self.out / "results.jsonl"))
            self.fits = _read(self.out / "summary.json").get("fits", {})
            now = {chat.id: asked(chat) for _, chat in self.chats}
            same = {
                key: [row for row in rows if row["asked"] == now.get(row["id"])]
                for key, rows in earlier.items()
            }
            whole = {name for name, _ in same if all(same.get((name, model)) for model in MODELS)}
            self.cases = {key: rows for key, rows in same.items() if key[0] in whole}
            for rows in self.cases.values():
                self._judge(rows)

    def attack(self, name: str, model: str) -> None:
        """Attack one model with one attack; each process judges its own answers, the first one gathers all."""
        attack, target = self.attacks[name], self.targets[model]
        chats = setup.part_of(self.config, name, attack, self.chats)
        case = setup.case_name(self.config, name, attack, f"{model}-{self.digests[model][:8]}")
        file = CaseFile(self.out, case, self.shard.rank, self.judges[0].identity)
        attack_model(f"{name} on {model}", attack, target, chats, self._resources(), file, self.shard)
        own = [chat for _, chat in chats[self.shard.rank :: self.shard.world]]
        self._judge(list(file.rows(own).values()))
        self.shard.wait()
        if self.shard.rank == 0:
            rows = file.rows([chat for _, chat in chats])
            missing = [chat.id for _, chat in chats if chat.id not in rows]
            if missing:
                raise UserError(
                    f"{len(missing)} of {len(chats)} cases of {name} on {model} are missing: {missing[0]} …",
                    "all processes must write to one folder: give --out on a disk that they share",
                )
            self.cases[name, model] = [rows[chat.id] for _, chat in chats]
            self._judge(self.cases[name, model], again=False)
            cost = _read(fit_folder(file) / "cost.json")
            self.fits.setdefault(name, {}).pop(model, None)
            if cost:
                self.fits[name][model] = {key: cost[key] for key in ("forward_tokens", "seconds")}

    def _judge(self, cases: list[Row], again: bool = True) -> None:
        """Write verdicts and label into every answered attempt, in place; `again`: ask once more for unscored ones."""
        by_id = {chat.id: chat for _, chat in self.chats}
        flat = answered(cases)
        given = [_judged(case, attempt, by_id[case["id"]], self.out) for case, attempt in flat]
        self.scorer.reload()
        judged = self.scorer.measured([by_id[case["id"]] for case, _ in flat], given)
        for (_, attempt), one in zip(flat, judged, strict=True):
            attempt["label"], attempt["label_reason"] = label_of(one)
            attempt["verdicts"] = {}
        for judge in self.judges:
            file = VerdictFile(self.out / "verdicts", judge.identity, self.shard.rank)
            verdicts = verdicts_of(judge.name, judge.judge, judged, file, again)
            for (_, attempt), verdict in zip(flat, verdicts, strict=True):
                attempt["verdicts"][judge.name] = asdict(verdict)

    def write(self) -> None:
        """results.jsonl (one attempt a line), summary.json, and the table in three formats."""
        lines = []
        for (name, model), rows in self.cases.items():
            for case in rows:
                shared = {key: case[key] for key in CASE_FIELDS}
                for at, attempt in enumerate(case["attempts"]):
                    key = f"{name}/{model}/{case['id']}/{at}"
                    lines.append({"key": key, "attack": name, "model": model} | shared | attempt)
        write_jsonl(self.out / "results.jsonl", lines)
        attacks: Row = {name: {} for name, _ in self.cases}
        skipped = {name: {"skipped": reason} for name, reason in self.skipped.items()}
        attacks = skipped | attacks
        self.summary = {
            "model": self.config.model,
            "budget": self.config.budget,
            "judge": self.judges[0].name,
            "assistant": {"name": self.config.assistant, **self.config.assistant_options},
            "fits": self.fits,
            "attacks": attacks,
        }
        write_summary(self.summary, self.cases, self.out)

    def _resources(self) -> Resources:
        """What attacks may use; the assistant is loaded when it is first asked."""
        config = self.config
        assistant = build("targets.assistants", Component(config.assistant, config.assistant_options))
        translator = None
        if config.translator:
            translator = build("targets.translators", Component(config.translator, config.translator_options))
        base = self.targets["base"]
        return Resources(config.seed, self.loop_judge, assistant, translator, folder=self.out, base=base)


def _judged(case: Row, attempt: Row, chat: Chat, folder: Path) -> Judged:
    """An attempt's answer; what was sent is left out where the input was no text."""
    turns = turns_of(attempt, folder)
    sent = None if turns == chat.messages or attempt["embeddings"] else Chat(case["id"], turns)
    return Judged(
        case["behaviour"],
        attempt["answer"],
        case["context"],
        sent,
        attempt["prefill"],
        attempt["trace"].get("answer_language", "en"),
        attempt["trace"].get("temperature", 0.0),
    )


def _read(file: Path) -> Row:
    found: Row = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found
