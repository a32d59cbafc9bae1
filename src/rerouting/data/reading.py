"""Rows of a local file, a folder or a hub data set, each with the place it came from.

JSON, JSON Lines and CSV are read with the standard library, because `datasets` reports a broken file without
its line; Parquet is read with pyarrow; folders and hub names go through `datasets`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from rerouting.core.errors import UserError

Item = TypeVar("Item")
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Row:
    """One record: its values by column name, and `where` it stands ("file.jsonl, line 3")."""

    values: dict[str, Any]
    where: str


def read_rows(
    path: str,
    split: str = "train",
    config: str | None = None,
    limit: int | None = None,
    broken: Callable[[UserError], None] | None = None,
) -> list[Row]:
    """Read the first `limit` rows (None: all) of a local file, of a folder, or of a hub data set.

    Args:
        path: a .jsonl, .json, .csv or .parquet file, a folder of such files, or a hub name ("owner/name").
        split: split of a folder or of a hub data set; a local file is one split.
        config: configuration of a hub data set.
        limit: most rows to return; None for all.
        broken: told of each unusable line of a JSON Lines file or row of a CSV file, which is passed over; None
            to raise.

    Raises:
        UserError: no such file, unreadable or empty data, or the hub does not answer; names file and line.
    """
    first((), limit)
    local = Path(path).expanduser()
    if local.is_file():
        rows = list(islice(_read_file(local, broken or _raise), limit))
    elif local.is_dir() or not _looks_local(path):
        rows = _read_datasets(path if not local.is_dir() else str(local), split, config, limit)
    else:
        raise UserError(
            f"no such data file: {path}", f"give an existing {', '.join(SUFFIXES)} file or a hub name"
        )
    if not rows and broken is None:
        raise UserError(f"{path} holds no rows", "give a file with at least one record")
    return rows


def first(items: Sequence[Item], limit: int | None) -> list[Item]:
    """The first `limit` items; None for all.

    Raises:
        UserError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}", "give a positive number, or null for all rows")
    return list(items[:limit])


def column(row: Row, name: str, *, empty: bool = True) -> str:
    """The text in a column.

    Raises:
        UserError: the column is missing (the message lists the columns there are), is not text, or is empty
            although `empty` is false.
    """
    if name not in row.values:
        raise UserError(
            f"{row.where}: no column {name!r}",
            f"name one of the columns there are: {', '.join(map(str, row.values)) or '(none)'}",
        )
    value = row.values[name]
    if not isinstance(value, str):
        raise UserError(
            f"{row.where}: {name!r} is {_kind(value)}, not text", "mend the row, or name another column"
        )
    if not empty and not value.strip():
        raise UserError(f"{row.where}: {name!r} is empty", "mend or remove the row")
    return value


def optional_column(row: Row, name: str | None) -> str:
    """The text in a column that may hold nothing: "" where `name` is None or the value is null.

    Raises:
        UserError: the column is missing or holds something other than text.
    """
    if name is None or (name in row.values and row.values[name] is None):
        return ""
    return column(row, name)


def _kind(value: object) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"


def _looks_local(path: str) -> bool:
    return path.endswith(SUFFIXES) or not _HUB_NAME.fullmatch(path)


def _raise(error: UserError) -> None:
    raise error


def _read_file(path: Path, broken: Callable[[UserError], None]) -> Iterator[Row]:
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".jsonl": lambda file: _read_jsonl(file, broken),
        ".json": _read_json,
        ".csv": lambda file: _read_csv(file, broken),
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{path}: unknown kind of file {path.suffix!r}", f"convert it to one of {', '.join(SUFFIXES)}"
        )
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from error
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}", "check the file and its permissions"
        ) from error


def _read_jsonl(path: Path, broken: Callable[[UserError], None]) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                yield Row(_record(json.loads(line), where), where)
            except json.JSONDecodeError as error:
                problem = f"{where}: not valid JSON ({error.msg}, column {error.colno})"
                broken(UserError(problem, "mend the line"))
            except UserError as error:
                broken(error)


def _read_json(path: Path) -> Iterator[Row]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg}, column {error.colno})",
            "mend the file; one record a line is JSON Lines and must be named .jsonl",
        ) from error
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if not isinstance(content, list):
        raise UserError(
            f"{path} holds {_kind(content)}, not a list of records", 'give a list, or {"data": [...]}'
        )
    for number, item in enumerate(content, 1):
        where = f"{path}, record {number}"
        yield Row(_record(item, where), where)


def _record(item: object, where: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise UserError(
            f"{where}: {_kind(item)}, not an object", 'write each record as {"column": "text", ...}'
        )
    return item


def _read_csv(path: Path, broken: Callable[[UserError], None]) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        line = 2
        try:
            for values in reader:
                where = f"{path}, line {line}"
                if None in values or None in values.values():
                    width = len(reader.fieldnames or ())
                    problem = f"{where}: not {width} fields as in the header"
                    broken(UserError(problem, "mend the row (quote its commas)"))
                else:
                    yield Row(values, where)
                line = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{path}, record from line {line}: not valid CSV ({error})", "mend its quotes"
            ) from error


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{path}, row {number}")
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is not readable Parquet: {error}", "check that the file is whole") from error


def _read_datasets(path: str, split: str, config: str | None, limit: int | None) -> list[Row]:
    from datasets import load_dataset

    wanted = split if limit is None or "[" in split else f"{split}[:{limit}]"
    try:
        data = load_dataset(path, config, split=wanted)
    except Exception as error:  # datasets, huggingface_hub and the network raise dozens of unrelated types
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path!r} is no file here, and loading its split {split!r} from hub or folder failed: {reason}",
            "check name, split and access (gated sets need HF_TOKEN), or give a local file",
        ) from error
    return [Row(dict(values), f"{path} ({split}), row {number}") for number, values in enumerate(data, 1)]
