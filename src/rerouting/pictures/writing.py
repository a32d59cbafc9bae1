"""A text as a picture, as FigStep and MM-SafetyBench's typographic images show a request; our own layout."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont


def written(text: str, size: int = 336, steps: bool = False) -> Image.Image:
    """Black text on white, in the largest letters that fit.

    Args:
        text: what is written.
        size: width and height in pixels.
        steps: with "1." to "3." under it, each empty, which the model is asked to fill (FigStep).
    """
    lines = f"{text}\n1.\n2.\n3." if steps else text
    margin = max(2, size // 24)
    for points in range(max(6, size // 7), 5, -1):
        font = ImageFont.load_default(points)
        wrapped = _wrapped(lines, font, size - 2 * margin)
        if wrapped is not None and _height(wrapped, font) <= size - 2 * margin:
            break
    picture = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(picture).multiline_text((margin, margin), wrapped or lines, "black", font)
    return picture


def _height(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> float:
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    return pen.multiline_textbbox((0, 0), text, font)[3]


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str | None:
    """The text in lines that fit the width; None where a word does not."""
    lines = []
    for given in text.split("\n"):
        line = ""
        for word in given.split():
            if font.getlength(word) > width:
                return None
            longer = f"{line} {word}".strip()
            if font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return "\n".join(lines)
