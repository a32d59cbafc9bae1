"""A matplotlib figure as a file that is there whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rerouting.core.files import atomic_write


def save_picture(figure: Any, file: Path) -> None:
    """Lay out, write as PNG, and let the figure go."""
    from matplotlib import pyplot

    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=140)
    pyplot.close(figure)
    atomic_write(file, picture.getvalue())
