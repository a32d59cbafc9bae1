"""A finished run as it recorded itself, and what is not the same here and now, before anything is repeated."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rerouting.core.config import load_config
from rerouting.core.conversion import plain
from rerouting.core.errors import UserError
from rerouting.core.files import sha256_file, sha256_of
from rerouting.core.rundir import RunDir, is_run
from rerouting.data.config import SourceConfig
from rerouting.data.loading import chats_of
from rerouting.models.adapter_files import WEIGHTS
from rerouting.pipeline.made_of import own_files
from rerouting.training.config import RunConfig

HARDWARE = (
    "python",
    "system",
    "processor",
    "instructions",
    "threads",
    "cores",
    "memory_gib",
    "gpus",
    "batching",
)


@dataclass(frozen=True)
class Difference:
    """Something that is not as the run recorded it.

    Attributes:
        what: its name.
        recorded: as it was.
        now: as it is.
        decides: with it the repeated run cannot be the same.
    """

    what: str
    recorded: str
    now: str
    decides: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.recorded} → {self.now}"


@dataclass(frozen=True)
class Recorded:
    """A run's own record.

    Attributes:
        run: its folder, read from and never written to.
        config: its config.yaml.
        facts: its manifest.json; empty where that is missing or damaged.
        faults: what is missing, damaged, or contradicts the rest.
    """

    run: RunDir
    config: RunConfig
    facts: dict[str, Any]
    faults: list[Difference] = field(default_factory=list)

    @property
    def processes(self) -> list[dict[str, Any]]:
        """The environment of every process that worked on the run; several, if it was resumed."""
        return list(self.facts.get("processes", []))

    @property
    def place(self) -> Path | None:
        """The folder that relative paths of the configuration started from, if it is still there."""
        found = [Path(one["folder"]) for one in self.processes if one.get("folder")]
        return found[-1] if found and found[-1].is_dir() else None

    @property
    def threads(self) -> int | None:
        """Threads that every process of the run computed with; None where they differ or are not known."""
        found = {one.get("threads") for one in self.processes}
        return found.pop() if len(found) == 1 else None


def read_record(folder: Path) -> Recorded:
    """A run's configuration and manifest, with what is wrong with them.

    Raises:
        UserError: no run, or one without a readable configuration, which nothing can stand in for.
    """
    if not folder.is_dir() or not is_run(folder):
        raise UserError(
            f"{folder} is not a run directory", "give what `rerouting train` or `quickstart` wrote"
        )
    run = RunDir.of_another_process(folder)
    if not run.config.is_file():
        raise UserError(f"{run.config} is missing", "without it nothing says what the run was")
    config = load_config(RunConfig, run.config)
    facts, faults = _manifest(run.manifest)
    if facts:
        faults += _contradictions(run, config, facts)
    if not run.readme.is_file():
        faults.append(Difference("the run itself", "a finished one", "not finished", decides=True))
    return Recorded(run, config, facts, faults)


def environment_differences(recorded: Recorded, now: Mapping[str, Any]) -> list[Difference]:
    """Versions, code and hardware, between all processes of the run and this one.

    Args:
        recorded: the run.
        now: `core.manifest.environment()` with this process's `batching`.
    """
    processes = recorded.processes
    found = [_compared(name, [one.get(name) for one in processes], now.get(name)) for name in HARDWARE]
    names = dict.fromkeys(name for one in processes for name in one.get("packages", {}))
    for name in names:
        versions = [one.get("packages", {}).get(name) for one in processes]
        found.append(_compared(name, versions, now["packages"].get(name)))
    codes = [one.get("code") for one in processes]
    if any(codes):
        found.append(_compared("code of rerouting", [_short(one) for one in codes], _short(now["code"])))
    else:
        revisions = [(one.get("source") or {}).get("revision") for one in processes]
        found.append(_compared("revision of rerouting", revisions, (now.get("source") or {}).get("revision")))
    return [one for one in found if one is not None]


def data_differences(recorded: Recorded) -> list[Difference]:
    """Sources that now give other chats, or none, and the user's own files that changed."""
    config, known = recorded.config, recorded.facts.get("data", {}).get("sources", {})
    found = [
        Difference(f"file {name}", _short(was), _short(now), decides=True)
        for name, was, now in _files(recorded)
        if was != now
    ]
    for name, sources in _sources(config):
        rows = known.get(name, [])
        for at, source in enumerate(sources):
            shown = f"{name}[{at}] ({' '.join(_described(source))})"
            found += _source_differs(shown, source, rows[at] if at < len(rows) else {})
    return found


def stage_differences(recorded: Recorded, stage: str, facts: Mapping[str, Any]) -> list[Difference]:
    """What the repeated run's own manifest shows once a stage is done.

    Args:
        recorded: the run.
        stage: "load" (model and devices are known) or "prepare" (the tokenised streams are).
        facts: the repeated run's manifest.
    """
    was = recorded.facts
    if stage == "prepare":
        streams = was.get("data", {}).get("sha256", {})
        now = facts["data"]["sha256"]
        found = [
            _compared(f"stream {name}", [_short(sha)], _short(now.get(name))) for name, sha in streams.items()
        ]
        return [one for one in found if one is not None]
    model, own = was.get("model", {}), facts["model"]
    was_weights, own_weights = _short(model.get("sha256")), _short(own["sha256"])
    weights = (
        []
        if model.get("sha256") == own["sha256"]
        else [Difference("weights of the base model", was_weights, own_weights, decides=True)]
    )
    found = [_compared("number format", [model.get("dtype")], own["dtype"])]
    found += [
        _compared(name.replace("_", " "), [was.get(name)], facts[name])
        for name in ("target_layers", "devices")
    ]
    return weights + [one for one in found if one is not None]


@contextlib.contextmanager
def as_recorded(recorded: Recorded, tell: Callable[[str], None]) -> Iterator[None]:
    """Work in the folder that the run was started from, with as many threads."""
    threads, here = torch.get_num_threads(), Path.cwd()
    if recorded.threads and recorded.threads != threads:
        torch.set_num_threads(recorded.threads)
        tell(f"threads: {threads} → {recorded.threads}, as recorded")
    if recorded.place and recorded.place != here:
        tell(f"relative paths start from {recorded.place}, as recorded")
    try:
        with contextlib.chdir(recorded.place or here):
            yield
    finally:
        torch.set_num_threads(threads)


def _manifest(path: Path) -> tuple[dict[str, Any], list[Difference]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(found, dict)
    except OSError:
        return {}, [Difference("manifest.json", "there", "missing", decides=True)]
    except (ValueError, AssertionError):
        return {}, [Difference("manifest.json", "whole", "damaged", decides=True)]
    return found, []


def _contradictions(run: RunDir, config: RunConfig, facts: dict[str, Any]) -> list[Difference]:
    """Where the parts of a run do not belong together."""
    found = []
    seed = facts.get("seed", config.seed)
    if seed != config.seed:
        found.append(
            Difference("seed in config.yaml", f"{seed} (manifest.json)", str(config.seed), decides=True)
        )
    was = facts.get("config", {}).get("sha256")
    if was and was != sha256_file(run.config):
        found.append(
            Difference("config.yaml", _short(was), f"{_short(sha256_file(run.config))}, edited", decides=True)
        )
    weights, sha = run.adapter / WEIGHTS, facts.get("adapter", {}).get("sha256")
    if sha and weights.is_file() and sha256_file(weights) != sha:
        found.append(
            Difference("adapter of the run", _short(sha), f"{_short(sha256_file(weights))}, damaged")
        )
    return found


def _compared(what: str, recorded: Sequence[Any], now: Any) -> Difference | None:
    """A difference, if any process of the run recorded something else; what was not recorded is no difference."""
    known = [one for one in recorded if one is not None]
    if all(plain(one) == plain(now) for one in known):
        return None
    shown = list(dict.fromkeys(_shown(one) for one in known))
    return Difference(what, " then ".join(shown), "none" if now is None else _shown(now))


def _files(recorded: Recorded) -> Iterator[tuple[str, str, str | None]]:
    now = own_files(recorded.config)
    for name, was in recorded.facts.get("files", {}).items():
        yield name, was, now.get(name)


def _sources(config: RunConfig) -> Iterator[tuple[str, list[SourceConfig]]]:
    """Every list of sources by its name in the manifest; those without weight are never read."""
    data = config.data
    yield "circuit_breaker", [one for one in data.circuit_breaker if one.weight > 0]
    yield "retain", [one for one in data.retain if one.weight > 0]
    yield "held_out_harmful", data.held_out_harmful
    yield "held_out_benign", data.held_out_benign
    yield "evaluation", data.evaluation
    yield "sets", [one.source for one in config.evaluation.sets]


def _source_differs(shown: str, source: SourceConfig, row: Mapping[str, Any]) -> list[Difference]:
    was = row.get("sha256")
    try:
        chats = chats_of(source)
    except UserError as error:
        return [Difference(shown, _count(row), f"cannot be read: {error}", decides=True)]
    now = sha256_of(chats)
    if was and was != now:
        return [
            Difference(
                shown, f"{_count(row)}, {_short(was)}", f"{len(chats)} chats, {_short(now)}", decides=True
            )
        ]
    if not was and row.get("chats", len(chats)) != len(chats):
        return [Difference(shown, _count(row), f"{len(chats)} chats", decides=True)]
    return []


def _described(source: SourceConfig) -> Iterable[str]:
    yield source.name
    for name in ("path", "kind", "split"):
        if source.options.get(name):
            yield str(source.options[name])


def _count(row: Mapping[str, Any]) -> str:
    return f"{row['chats']} chats" if "chats" in row else "not recorded"


def _short(sha: str | None) -> str:
    return sha[:12] if sha else "none"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(plain(value))
