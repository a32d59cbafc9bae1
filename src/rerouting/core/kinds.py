"""Which kinds of requests are harmless; all others count as harmful, so that nothing is taken for harmless unasked."""

from __future__ import annotations

HARMLESS = ("benign", "borderline", "retain", "xstest", "or_bench", "wildchat", "facts")


def is_harmless_kind(kind: str) -> bool:
    """Whether a kind, a source or a set of this name holds harmless requests."""
    return kind.lower() in HARMLESS
