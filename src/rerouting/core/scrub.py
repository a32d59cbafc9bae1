"""Values without what concerns only the machine that they come from: local paths, the user's and the host's name."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

PATH = re.compile(r"(?<![\w:/.~\\])(?:file://)?(?:~?/|[A-Za-z]:\\)(?=[^\s/\\])[^\s\"'`<>|*,;)\]}]*")
"""An absolute path, or one from a home folder; no part of an address or of a relative path."""
COMMON = {"root", "user", "home", "ubuntu", "localhost", ""}
"""Names that tell nothing, and that texts are full of."""


def scrubbed(value: Any, keep: Collection[str] = ()) -> Any:
    """Plain values in which every absolute path is its last part alone, and personal names are "user" and "host".

    Args:
        value: text, lists and mappings of it, and whatever else JSON has.
        keep: names that are public anyway, such as the owner of the repository.
    """
    if isinstance(value, str):
        text = PATH.sub(lambda found: PurePath(found[0].replace("\\", "/")).name, value)
        for name, stands in _names().items():
            if name not in keep:
                text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", stands, text)
        return text
    if isinstance(value, Mapping):
        return {scrubbed(str(name), keep): scrubbed(item, keep) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrubbed(item, keep) for item in value]
    return value


def _names() -> dict[str, str]:
    """What the user and the host are called here, and what stands for it."""
    users = {Path.home().name}
    with suppress(OSError, KeyError):  # an account without a name
        users.add(getpass.getuser())
    host = socket.gethostname()
    names = dict.fromkeys(users, "user") | {host: "host", host.partition(".")[0]: "host"}
    return {name: stands for name, stands in names.items() if name.lower() not in COMMON}
