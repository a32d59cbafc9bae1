"""Files that are there whole or not at all, JSON Lines, and hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rerouting.core.conversion import plain
from rerouting.core.errors import PassingError, UserError

FULL = (errno.ENOSPC, errno.EDQUOT)


def atomic_write(path: Path, data: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, whatever happens in between.

    Raises:
        UserError: the disk is full, or the place cannot be written; the old file is untouched.
    """
    temporary = _beside(path, "tmp")
    content = data.encode() if isinstance(data, str) else data
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            _write_all(handle, content)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, and is removed when it does not.

    A folder that was at `path` is removed only when the new one is in its place.

    Raises:
        UserError: the disk is full, or the place cannot be written; the old folder is untouched.
    """
    temporary, old = _beside(path, "tmp"), _beside(path, "old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        temporary.mkdir()
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _sync_folder(file)
        _swap(temporary, path, old)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_disk_full(error):
            raise write_error(path, error) from error
        raise
    _sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line to a JSON Lines file; a torn last line, left by a kill, is cut off first.

    Raises:
        UserError: the disk is full, or the place cannot be written; the lines before are untouched.
        ValueError: the row holds NaN or infinity, which JSON cannot.
    """
    line = (_dumped(row) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            end = _whole_end(handle)
            os.ftruncate(handle, end)
            os.lseek(handle, end, os.SEEK_SET)
            try:
                _write_all(handle, line)
            except OSError:
                os.ftruncate(handle, end)
                raise
        finally:
            os.close(handle)
    except OSError as error:
        raise write_error(path, error) from error


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole JSON Lines file atomically; errors as in `atomic_write` and `append_jsonl`."""
    atomic_write(path, "".join(_dumped(row) + "\n" for row in rows))


def read_jsonl(path: Path, tolerate_torn: bool = False) -> list[dict[str, Any]]:
    """Every row of a JSON Lines file; empty lines are passed over.

    Args:
        path: the file.
        tolerate_torn: leave out a last line that has no end and is not JSON, as a kill leaves it.

    Raises:
        UserError: an unreadable file, or a line that is not a JSON object, with its number.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "check the path") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if tolerate_torn and number == len(lines):
                break
            raise UserError(f"{path}:{number}: not JSON: {error}", "mend or remove that line") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: a {type(row).__name__}", "every line must be a JSON object")
        rows.append(row)
    return rows


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(value: Any) -> str:
    """SHA-256 of plain values or dataclasses as canonical JSON (sorted keys), in hexadecimal."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or safetensors' own kind of it, says that no space is left."""
    return (isinstance(error, OSError) and error.errno in FULL) or "No space left on device" in str(error)


def write_error(path: Path, error: BaseException) -> PassingError:
    """What to tell the user when a file or folder could not be written."""
    if is_disk_full(error):
        return PassingError(
            f"disk full: cannot write {path}", "free some space and run the same again; nothing saved is lost"
        )
    reason = getattr(error, "strerror", None) or error
    return PassingError(f"cannot write {path}: {reason}", "check the folder and its permissions")


def _dumped(row: Mapping[str, Any]) -> str:
    return json.dumps(plain(row), ensure_ascii=False, allow_nan=False)


def _write_all(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]


def _whole_end(handle: int) -> int:
    """Length of a JSON Lines file without its torn last line; a whole last line gets its missing end."""
    size = os.lseek(handle, 0, os.SEEK_END)
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return size
    tail, start = b"", size
    while start and b"\n" not in tail:
        start = max(0, start - 65536)
        tail = os.pread(handle, size - start, start)
    last = tail.rpartition(b"\n")[2]
    try:
        json.loads(last)
    except ValueError:
        return size - len(last)
    os.lseek(handle, size, os.SEEK_SET)
    _write_all(handle, b"\n")
    return size + 1


def _beside(path: Path, ending: str) -> Path:
    """A hidden name in the same folder, this process's own."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{ending}")


def _clear_leftovers(path: Path) -> None:
    """Undo what a killed process of this machine left: half-written copies, and an old folder moved aside."""
    start = f".{path.name}.{socket.gethostname()}."
    for left in [entry for entry in path.parent.iterdir() if entry.name.startswith(start)]:
        pid, _, ending = left.name[len(start) :].partition(".")
        if (
            not pid.isdigit()
            or ending not in ("tmp", "old")
            or (_alive(int(pid)) and int(pid) != os.getpid())
        ):
            continue
        if ending == "old" and not path.exists():
            left.rename(path)
        elif left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _swap(temporary: Path, path: Path, old: Path) -> None:
    try:
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise write_error(path, error) from error


def _sync_folder(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
