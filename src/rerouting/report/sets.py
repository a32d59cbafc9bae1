"""Which texts of a run are harmful: all that are not known to be harmless, so that nothing is shown unasked."""

from __future__ import annotations

from rerouting.core.kinds import is_harmless_kind
from rerouting.report.node import DamagedError, Node
from rerouting.report.reading import Run

HARMFUL_CONTROLS = ("toxic", "unsafe")


def is_harmful(run: Run, set_name: str) -> bool:
    """Whether an evaluation set's requests are, by the kind of its source, else by its name."""
    try:
        sets = run.config()["evaluation"]["sets"].items()
        kinds = [_kind(one) for one in sets if one["name"].text() == set_name]
    except DamagedError:
        kinds = []
    kind = kinds[0] if kinds and kinds[0] else set_name
    return not is_harmless_kind(kind)


def _kind(node: Node) -> str:
    """`bundled` has kinds; any other source is a kind of its own, but for the harmful part of a harmless one."""
    source = node["source"]
    options = source.get("options")
    given = {key: one.value for key, one in options.entries()} if options else {}
    if any(word in str(value) for value in given.values() for word in HARMFUL_CONTROLS):
        return "harmful"
    return str(given.get("kind") or source["name"].text())
