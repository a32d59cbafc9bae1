"""Pictures that a data file names: found beside it, and there, before anything is spent."""

from __future__ import annotations

from pathlib import Path

from rerouting.core.errors import UserError
from rerouting.data.reading import Row
from rerouting.pictures.opening import MADE


def folder_of(path: str, folder: str | None) -> Path:
    """Where a data file's pictures are: the folder given, or the file's own."""
    local = Path(path).expanduser()
    return Path(folder).expanduser() if folder else (local if local.is_dir() else local.parent)


def picture_at(folder: Path, name: str, where: str) -> str:
    """A picture by name, as a reference.

    Raises:
        UserError: it is not there.
    """
    if name.startswith(MADE):
        return name
    file = folder / name
    if not file.is_file():
        raise UserError(
            f"{where}: there is no picture {file}", "give the folder of the pictures, or remove the row"
        )
    return str(file)


def pictures_in(row: Row, name: str, folder: Path) -> tuple[str, ...]:
    """The pictures that a column names: one, a list, or none (null, an empty list or text).

    Raises:
        UserError: a picture is not there, or the column holds something else.
    """
    value = row.values.get(name)
    if value is None or value == "" or value == []:
        return ()
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise UserError(
            f"{row.where}: {name!r} is neither a file's name nor a list of them",
            "mend the row, or name another column",
        )
    return tuple(picture_at(folder, one, row.where) for one in names)
