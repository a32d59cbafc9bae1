"""Pictures that a data file names: found beside it, and there, before anything is spent."""

from __future__ import annotations

from pathlib import Path

from rerouting.core.errors import UserError
from rerouting.data.reading import Row, column, first, read_rows
from rerouting.pictures.opening import MADE

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Of files that are taken for pictures."""


def listed(path: str, limit: int | None = None) -> list[tuple[str, str]]:
    """The pictures of a folder and of all in it, sorted; or those that a file lists. Whether they can be read, opening
    them shows.

    Args:
        path: a folder (COCO's train2017), a text file with a reference a line, or data with a column `image`.
        limit: the first so many; None for all.

    Returns:
        The name of each as it stands there, and its reference.

    Raises:
        UserError: there is no such folder or file, or no picture in it.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(f"there is no {path}", "give a folder of pictures, or a file that lists them")
    if place.is_dir():
        found = [file for file in place.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file()]
        names = sorted(file.relative_to(place).as_posix() for file in found)
    elif place.suffix == ".txt":
        names = [line.strip() for line in _text_of(place).splitlines() if line.strip()]
    else:
        names = [column(row, "image", empty=False) for row in read_rows(path)]
    if not names:
        raise UserError(
            f"{path} has no pictures", f"give a folder of {', '.join(ENDINGS)} files, or a list of them"
        )
    home = folder_of(path, None)
    return [(name, name if name.startswith(MADE) else str(home / name)) for name in first(names, limit)]


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}", "give UTF-8 text, a reference a line") from error


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
