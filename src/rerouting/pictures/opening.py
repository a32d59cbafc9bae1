"""Pictures by reference, always as RGB.

A reference is the path of a file, or names what the package makes itself, without a file:

- `drawn:test/17`: a drawn picture (scenes.py) by split and number;
- `written:TEXT`, `steps:TEXT`: a text (writing.py), as it stands or as FigStep shows it;
- `blank:WIDTHxHEIGHT`: grey.

Only the first frame of an animated file is read, transparent parts are white, and EXIF's rotation is obeyed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from rerouting.core.errors import UserError
from rerouting.core.prompts import images_of
from rerouting.pictures.scenes import scene
from rerouting.pictures.writing import written

MOST_PIXELS = 50_000_000
"""Larger files are refused unread: they are mistakes, or made to fill the memory."""
LOSSLESS = 1_000_000
"""Pixels up to which a picture is sent to an endpoint without loss."""
MADE = ("drawn:", "written:", "steps:", "blank:")
"""How references begin that are no files."""


def open_picture(reference: str) -> Image.Image:
    """The picture, RGB.

    Raises:
        UserError: no such file, no picture in it, one that is cut off, has no pixel or too many, or a reference that
            means nothing.
    """
    kind, _, rest = reference.partition(":")
    if not reference.startswith(MADE):
        return _read(Path(reference).expanduser())
    if kind == "drawn" and (found := re.fullmatch(r"(\w+)/(\d+)", rest)):
        return scene(found[1], int(found[2])).picture
    if kind == "blank" and (found := re.fullmatch(r"(\d+)x(\d+)", rest)):
        return Image.new("RGB", _checked((int(found[1]), int(found[2])), reference), (127, 127, 127))
    if kind in ("written", "steps") and rest.strip():
        return written(rest, steps=kind == "steps")
    raise UserError(
        f"{reference!r} is no picture",
        "write drawn:test/17, written:TEXT, steps:TEXT or blank:96x96, or a path",
    )


def placed(reference: str, folder: Path) -> str:
    """A reference that is to be opened: to a file of the folder's own pictures/ by its place in there, so that the
    folder may be moved; any other as it is."""
    own = folder / "pictures" / Path(reference).name
    return str(own) if not reference.startswith(MADE) and own.is_file() else reference


def portable(reference: str, folder: Path) -> str:
    """A reference that is to be written down: `pictures/NAME` for a file in the folder's own pictures/."""
    return f"pictures/{Path(reference).name}" if Path(reference).parent == folder / "pictures" else reference


@lru_cache(maxsize=4096)
def _digest_of(path: str, changed: int, size: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def named(prompt: Sequence[int]) -> list[int | str]:
    """Token ids with what names the content of their pictures: what a prompt is known by."""
    return [*prompt, *map(identity, images_of(prompt))]


def identity(reference: str) -> str:
    """What names a picture's content: the reference itself, or the file's SHA-256.

    Raises:
        UserError: the file cannot be read.
    """
    if reference.startswith(MADE):
        return reference
    path = Path(reference).expanduser()
    try:
        facts = path.stat()
        return _digest_of(str(path), facts.st_mtime_ns, facts.st_size)
    except OSError as error:
        raise _unreadable(path, error) from error


def data_url(reference: str) -> str:
    """A picture as text that endpoints take: base64 of a PNG, or beyond a megapixel of a JPEG.

    Raises:
        UserError: as `open_picture`.
    """
    picture, data = open_picture(reference), io.BytesIO()
    kind = "png" if picture.width * picture.height <= LOSSLESS else "jpeg"
    picture.save(data, kind, quality=95)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            _checked(picture.size, str(path))
            picture.seek(0)
            upright = ImageOps.exif_transpose(picture)
            if upright.mode == "P" or "A" in upright.getbands() or "transparency" in upright.info:
                upright = upright.convert("RGBA")
                white = Image.new("RGBA", upright.size, "white")
                return Image.alpha_composite(white, upright).convert("RGB")
            if upright.mode.startswith("I;16") or upright.mode in ("I", "F"):
                raise UserError(f"{path} has {upright.mode} pixels", "save it with 8 bits a colour")
            return upright.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(
            f"{path} holds no picture that can be read: {error}", "replace or remove it"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _checked(size: tuple[int, int], name: str) -> tuple[int, int]:
    if not 0 < size[0] * size[1] <= MOST_PIXELS:
        raise UserError(
            f"{name} has {size[0]} × {size[1]} pixels", f"give a picture of 1 to {MOST_PIXELS:,} pixels"
        )
    return size


def _unreadable(path: Path, error: OSError) -> UserError:
    if not path.exists():
        return UserError(
            f"there is no picture {path}", "check the path; those in a file start at its own folder"
        )
    return UserError(f"{path} cannot be read: {error.strerror or error}", "replace or remove it")
