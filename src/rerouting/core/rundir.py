"""A run's folder: where each file is, and one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO

from rerouting.core.errors import InUseError, PassingError, UserError

LOCK = ".lock"


class RunDir:
    """A run directory, held by this process until it is closed (or killed: the lock goes with the process).

    `RunDir.create(path)` starts or goes on, `RunDir.open(path)` wants one that exists; both work in `with`.
    """

    def __init__(self, path: Path, lock: IO[str] | None = None) -> None:
        """`create` and `open` check the folder and take its lock; `of_another_process` does neither."""
        self.path, self._lock = path, lock

    @classmethod
    def create(cls, path: Path | str) -> RunDir:
        """A new run directory, or an existing one to go on with.

        Raises:
            UserError: the folder holds something that is no run, or another process works on it.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file", "name another folder for the run")
        if path.is_dir() and any(path.iterdir()) and not is_run(path):
            raise UserError(
                f"{path} is not empty and not a run directory",
                "name another folder; nothing in it was touched",
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the folder {path}: {error.strerror}", "name another folder"
            ) from error
        return cls(path, hold(path))

    @classmethod
    def of_another_process(cls, path: Path | str) -> RunDir:
        """The run directory that the main process of this same run holds: to read from."""
        return cls(Path(path))

    @classmethod
    def open(cls, path: Path | str) -> RunDir:
        """A run directory that exists.

        Raises:
            UserError: it does not, or another process works on it.
        """
        path = Path(path)
        if not is_run(path):
            missing = "is not a run directory" if path.exists() else "does not exist"
            raise UserError(f"{path} {missing}", "a run directory is what `rerouting train` leaves")
        return cls(path, hold(path))

    def close(self) -> None:
        """Let other processes work on it."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def config(self) -> Path:
        """The resolved configuration (YAML)."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """Where everything came from, and what it took (JSON)."""
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        """What training measured, one row a line (JSON Lines)."""
        return self.path / "metrics.jsonl"

    @property
    def adapter(self) -> Path:
        """The trained adapter (a folder in PEFT's format)."""
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        """The merged model (a folder)."""
        return self.path / "model"

    @property
    def generations(self) -> Path:
        """Every prompt with both models' answers and labels (JSON Lines)."""
        return self.path / "generations.jsonl"

    @property
    def summary(self) -> Path:
        """The rates of base and rerouted model (JSON)."""
        return self.path / "summary.json"

    @property
    def readme(self) -> Path:
        """The run in words (Markdown)."""
        return self.path / "README.md"

    @property
    def streams(self) -> Path:
        """Folder of the tokenised streams (JSON Lines)."""
        return self.path / "streams"

    @property
    def places(self) -> Path:
        """Mean states of the base that the rerouting loss asked for (safetensors)."""
        return self.path / "places.safetensors"

    @property
    def checkpoints(self) -> Path:
        """Folder of the training checkpoints."""
        return self.path / "checkpoints"


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory: it has a lock file, or a config and a manifest."""
    return (path / LOCK).is_file() or (
        (path / "config.yaml").is_file() and (path / "manifest.json").is_file()
    )


def hold(path: Path, name: str = LOCK) -> IO[str]:
    """Take the lock of an existing folder, until it is closed or the process ends.

    Raises:
        InUseError: another process has it.
        PassingError: the folder cannot be written or locked.
    """
    try:
        lock = (path / name).open("a+", encoding="utf-8")
    except OSError as error:
        raise PassingError(
            f"cannot write in {path}: {error.strerror}", "check the folder's permissions"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(lock)
        lock.close()
        raise InUseError(
            f"{path} is in use by {holder}", "wait for it, end it, or name another folder"
        ) from error
    except OSError as error:
        lock.close()
        raise PassingError(
            f"{path} cannot be locked: {error.strerror}", "use a folder on a local disk"
        ) from error
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat("T", "seconds"),
    }
    lock.truncate(0)
    lock.write(json.dumps(owner) + "\n")
    lock.flush()
    return lock


def _holder(lock: IO[str]) -> str:
    lock.seek(0)
    try:
        owner = json.loads(lock.read())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
