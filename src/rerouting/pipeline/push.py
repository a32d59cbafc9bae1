"""A run's adapter on the hub: what is uploaded is a list of files that are known, made ready in a folder of its own.

Uploaded are the adapter, its card, config.yaml, manifest.json and, when asked, the merged model. Never the answers, the
streams, the log, checkpoints or results: they hold harmful text, or the user's data. Texts lose their local paths.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from rerouting.core.config import load_config, load_mapping
from rerouting.core.errors import UserError
from rerouting.core.files import atomic_write
from rerouting.core.rundir import RunDir, is_run
from rerouting.core.scrub import scrubbed
from rerouting.models.adapter_files import CONFIG, WEIGHTS
from rerouting.pipeline.card import HUB_FILES, MERGED, Place, base_license, card_text, hub_name
from rerouting.training.config import RunConfig

MERGED_FOLDER = "merged"
WEIGHT_FILES = ("model*.safetensors", "model*.safetensors.index.json")
TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
FAILURES: tuple[type[Exception], ...] = (
    OSError,
    *(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ in ("HTTPError", "RequestException")),
)
"""What the hub's client raises when the hub or the network fails, whichever HTTP library it is built on."""


@dataclass(frozen=True)
class Upload:
    """What is about to be uploaded.

    Attributes:
        repo: owner/name.
        folder: where the files lie, ready.
        files: their names, as they will stand in the repository.
        user: who is logged in.
        private: whether only those with access will see it.
        exists: whether the repository is there already.
    """

    repo: str
    folder: Path
    files: list[str]
    user: str
    private: bool
    exists: bool

    def lines(self) -> list[str]:
        """Everything that will be uploaded, a line each."""
        kind = "private" if self.private else "PUBLIC"
        head = f"to {self.repo} ({'existing' if self.exists else 'new'}, {kind}), as {self.user}:"
        return [head, *(f"  {name}  {_size((self.folder / name).stat().st_size)}" for name in self.files)]


def push(
    run: Path,
    repo: str,
    work: Path,
    *,
    private: bool,
    merged: bool,
    base: str,
    agreed: Callable[[Upload], bool],
    api: HfApi | None = None,
) -> str | None:
    """Upload a run's adapter and card.

    Args:
        run: run directory.
        repo: owner/name on the hub.
        work: an empty folder to make the files ready in.
        private: make the repository private.
        merged: the merged model too, in the folder `merged`.
        base: hub name of the base model, where the run was given a folder or file.
        agreed: asked before anything is uploaded or created.
        api: the hub's client.

    Returns:
        The address of the commit; None if it was not agreed to.

    Raises:
        UserError: no finished run, an impossible name, no login, no network, or a repository that others can see
            although `private` was asked for.
    """
    api = api or HfApi()
    _check_name(repo)
    if not is_run(run) or not (run / "README.md").is_file() or not (run / "adapter" / CONFIG).is_file():
        raise UserError(f"{run} is not a finished run", "give what `rerouting train` or `quickstart` wrote")
    own = RunDir.of_another_process(run)
    config = load_config(RunConfig, own.config)
    base = base or hub_name(config)
    if not base:
        raise UserError(
            f"the base model was {config.model.name}, which others do not have",
            "name it on the hub: --base OWNER/NAME",
        )
    _check_name(base)
    try:
        user = str(api.whoami()["name"])
        known = _visibility(api, repo)
        license_ = base_license(own, config) or _license(api, base)
        files = stage(own, config, work, repo, base, license_, merged)
        if known == "public" and private:
            raise UserError(f"{repo} exists and is public", "make it private on the hub, or name another one")
        upload = Upload(repo, work, files, user, private or known == "private", known is not None)
        if not agreed(upload):
            return None
        api.create_repo(repo, private=upload.private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=work,
            allow_patterns=files,
            commit_message="Adapter with circuit breakers, made with rerouting",
        )
    except FAILURES as error:
        raise _explained(error, repo) from error
    return str(commit.commit_url)


def stage(
    run: RunDir, config: RunConfig, work: Path, repo: str, base: str, license_: str, merged: bool
) -> list[str]:
    """Write the files to upload into `work`; returns their names.

    Raises:
        UserError: a part of the run is missing.
    """
    place = Place(
        repo,
        repo,
        base,
        license_,
        MERGED.format(place=repo, subfolder=f', subfolder="{MERGED_FOLDER}"') if merged else "",
        HUB_FILES,
        "rerouting train --config config.yaml --out runs/again",
    )
    owners = {repo.partition("/")[0], base.partition("/")[0]}
    try:
        shutil.copyfile(run.adapter / WEIGHTS, work / WEIGHTS)
        adapter = json.loads((run.adapter / CONFIG).read_text(encoding="utf-8"))
        _write(work / CONFIG, scrubbed(adapter, owners) | {"base_model_name_or_path": base})
        facts = _shareable(json.loads(run.manifest.read_text(encoding="utf-8")))
        _write(work / "manifest.json", scrubbed(facts, owners))
        mapping = load_mapping(run.config)
        if not hub_name(config):
            mapping["model"]["name"] = base
        text = yaml.safe_dump(scrubbed(mapping, owners), sort_keys=False, allow_unicode=True, width=100)
        atomic_write(work / "config.yaml", text)
        atomic_write(work / "README.md", scrubbed(card_text(run, config, place), owners))
        if merged:
            _merged(run.model, work / MERGED_FOLDER)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(
            f"a part of {run.path} is missing or damaged: {error}", "repeat or finish the run"
        ) from error
    return sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file())


def _merged(model: Path, folder: Path) -> None:
    """The merged checkpoint: weights as they are, texts without local paths."""
    weights = [file for pattern in WEIGHT_FILES for file in sorted(model.glob(pattern))]
    if not weights:
        raise FileNotFoundError(f"no merged weights in {model}")
    folder.mkdir()
    for file in weights:
        shutil.copyfile(file, folder / file.name)
    for name in TEXT_FILES:
        if (model / name).is_file():
            shutil.copyfile(model / name, folder / name)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    _write(folder / "config.json", config)


def _shareable(facts: dict[str, Any]) -> dict[str, Any]:
    """A manifest without folders, and without the text of prompts that were dropped."""
    facts = {name: value for name, value in facts.items() if name not in ("base_model_path", "merge")}
    for one in facts.get("processes", []):
        one.pop("folder", None)
    for rows in facts.get("data", {}).get("sources", {}).values():
        for row in rows:
            if "dropped_like_evaluation" in row:
                row["dropped_like_evaluation"] = len(row["dropped_like_evaluation"])
    return facts


def _write(path: Path, value: Any) -> None:
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _visibility(api: HfApi, repo: str) -> str | None:
    try:
        return "private" if api.repo_info(repo).private else "public"
    except RepositoryNotFoundError:
        return None


def _license(api: HfApi, base: str) -> str:
    """What the base model's own card says; "" if the hub does not."""
    with suppress(*FAILURES):
        card = api.model_info(base).card_data
        return str(card.license or "") if card is not None else ""
    return ""


def _check_name(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"{repo!r} is no name on the hub", "write it as OWNER/NAME") from error
    if repo.count("/") != 1:
        raise UserError(f"{repo!r} names no owner", "write it as OWNER/NAME")


def _explained(error: BaseException, repo: str) -> UserError:
    """The user's version of what the hub's client raised."""
    if isinstance(error, LocalTokenNotFoundError):
        return UserError("not logged in to the hub", "run `hf auth login`, or set HF_TOKEN")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return UserError(
            "the hub does not know this token", "run `hf auth login`, or set HF_TOKEN to a valid one"
        )
    if status == 403:
        return UserError(
            f"this token may not write to {repo}", "use one with write access, or another owner's name"
        )
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if status:
        return UserError(
            f"the hub refused ({status}): {reason}", "nothing else was uploaded; see what it says"
        )
    return UserError(
        f"the hub cannot be reached: {reason}", "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
    )


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
