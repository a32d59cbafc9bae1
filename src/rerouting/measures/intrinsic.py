"""What the rerouted model makes of benign text, without a benchmark or a judge.

Over the response tokens of each text, given all before them: negative log-likelihood under both models (nats a token);
KL divergence from the base's next-token distribution to the rerouted one's (nats a token); agreement, the share of
tokens at which both have the same likeliest next one; and the drift of each layer's hidden states, relative to the
base's (length of the difference) and by angle (cosine); of the last layer after the final norm, as transformers
gives it. Every figure is a mean over texts of means over tokens. The
text is the source's own response, or the base's greedy answer where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rerouting.core.contracts import Aids, Measured
from rerouting.core.findings import Finding
from rerouting.data.config import SourceConfig
from rerouting.measures._reading import Row, read
from rerouting.measures._texts import answered, bundled, named


def _bundled() -> list[SourceConfig]:
    return [bundled("benign"), bundled("borderline")]


@dataclass(frozen=True)
class Intrinsic:
    """Both models read the same benign texts."""

    sources: list[SourceConfig] = field(default_factory=_bundled)
    """Benign texts: the bundled test requests, or a data set with responses."""
    limit: int | None = 60
    """Texts taken of each source, spread evenly; null for all."""
    max_tokens: int = 512
    """Length at which a text is cut, its request included."""
    layers: bool = True
    """Measure the drift of every layer's hidden states, too."""

    def measure(self, base: Any, rerouted: Any, aids: Aids) -> Measured:
        """Means over texts, for all and for each source."""
        found, notes = named(self.sources, self.limit, aids)
        rows: list[Row] = []
        for name, chats in found.items():
            rows += read(name, answered(chats, base), base, rerouted, self.max_tokens, self.layers)
        findings: list[Finding] = []
        for part in ["", *(found if len(found) > 1 else ())]:
            findings += _means([row for row in rows if part in ("", row["source"])], part)
        return Measured(findings + _drift(rows), rows, notes)


def _means(rows: Sequence[Row], part: str) -> list[Finding]:
    return [
        Finding.of_means("nll", "nats", [(row["base_nll"], row["rerouted_nll"]) for row in rows], part),
        Finding.of_values("kl", "nats", [row["kl"] for row in rows], part),
        Finding.of_values("agreement", "share", [row["agreement"] for row in rows], part),
    ]


def _drift(rows: Sequence[Row]) -> list[Finding]:
    depth = len(rows[0].get("drift", ())) if rows else 0
    return [
        Finding.of_values(
            name, "relative" if name == "drift" else "cosine", [row[name][at] for row in rows], f"layer {at}"
        )
        for name in ("drift", "cosine")
        for at in range(depth)
    ]
