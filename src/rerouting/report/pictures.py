"""Pictures beside an answer: what was sent, and for one that an attack changed the clean one and the change."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, ImageChops

from rerouting.core.errors import UserError
from rerouting.pictures.opening import open_picture, placed
from rerouting.report.node import Node
from rerouting.report.parts import Picture

LARGEST = 160
"""Width and height on the page, at most."""
STRONGER = 4
"""How much a change is amplified, around grey."""


def pictures_of(folder: Path, row: Node) -> list[Picture]:
    """The pictures of an attempt; one that cannot be read is named in its place.

    Args:
        folder: of the matrix, whose pictures/ is looked at first, so that a run may be moved.
        row: of results.jsonl.
    """
    turns = row["messages"].items()
    images = [image.text() for turn in turns for image in (turn.get("images") or Node([], "")).items()]
    trace = row.get("trace")
    clean = trace.maybe_text("clean") if trace else ""
    found = []
    for reference in images:
        try:
            sent = open_picture(placed(reference, folder))
            before = open_picture(clean).resize(sent.size) if clean else None
        except UserError as error:
            found.append(Picture(f"cannot be shown: {error}", ""))
            continue
        if before is not None:
            found += [
                _shown("clean", before),
                _shown(f"change, {STRONGER} times as strong", _change(before, sent)),
            ]
        found.append(_shown("sent", sent))
    return found


def _change(before: Image.Image, after: Image.Image) -> Image.Image:
    """The difference, amplified, 0 being grey."""
    more, less = ImageChops.subtract(after, before), ImageChops.subtract(before, after)
    grey = Image.new("RGB", before.size, (127, 127, 127))
    stronger = [one.point(lambda value: min(127, STRONGER * value)) for one in (more, less)]
    return ImageChops.subtract(ImageChops.add(grey, stronger[0]), stronger[1])


def _shown(caption: str, picture: Image.Image) -> Picture:
    small = picture.copy()
    small.thumbnail((LARGEST, LARGEST))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    return Picture(caption, "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode())
