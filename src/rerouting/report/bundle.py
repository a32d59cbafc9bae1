"""plotly.js for the page: packed, since it is most of the page's size; the browser unpacks it."""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from rerouting.core.errors import UserError


@dataclass(frozen=True)
class Script:
    """JavaScript that the page may run.

    Attributes:
        text: as it is run, or packed (gzip, then base64).
        digest: base64 of the SHA-256 of the unpacked text, for the content security policy.
    """

    text: str
    digest: str


def script(text: str) -> Script:
    """A script that is run as it stands."""
    return Script(text, _digest(text.encode()))


@cache
def plotly() -> Script:
    """plotly.js of the installed package, packed.

    Raises:
        UserError: there is none.
    """
    spec = find_spec("plotly")
    folders = list(spec.submodule_search_locations or []) if spec else []
    file = Path(folders[0], "package_data", "plotly.min.js") if folders else None
    if file is None or not file.is_file():
        raise UserError("plotly.min.js was not found", "pip install plotly")
    source = file.read_bytes()
    packed = gzip.compress(source, compresslevel=9, mtime=0)
    return Script(base64.b64encode(packed).decode(), _digest(source))


def _digest(source: bytes) -> str:
    return base64.b64encode(hashlib.sha256(source).digest()).decode()
