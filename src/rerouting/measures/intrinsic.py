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

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from rerouting.core.contracts import Aids, Measured
from rerouting.core.findings import Finding
from rerouting.core.progress import bar
from rerouting.core.records import Chat
from rerouting.data.config import SourceConfig
from rerouting.data.formatting import Example, tokenise_all
from rerouting.measures._texts import answered, bundled, named
from rerouting.targets.target import Target

Row = dict[str, Any]


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
            rows += self._read(name, answered(chats, base), base, rerouted)
        findings: list[Finding] = []
        for part in ["", *(found if len(found) > 1 else ())]:
            findings += _means([row for row in rows if part in ("", row["source"])], part)
        return Measured(findings + _drift(rows), rows, notes)

    def _read(self, name: str, chats: Sequence[Chat], base: Target, rerouted: Target) -> list[Row]:
        examples, _ = tokenise_all(chats, base.tokenizer, max_total=self.max_tokens, mask="response")
        rows: list[Row] = []
        with bar(f"reading {name}", len(examples)) as progress:
            for example in examples:
                rows.append(
                    {"source": name, "id": example.chat_id} | _compared(example, base, rerouted, self.layers)
                )
                progress.advance(1)
        return rows


@torch.inference_mode()
def _compared(example: Example, base: Target, rerouted: Target, layers: bool) -> Row:
    start, end = example.n_prompt, len(example.ids)
    own_logits, own_states = _read(base, example.ids, start, layers)
    new_logits, new_states = _read(rerouted, example.ids, start, layers)
    new_logits = new_logits.to(own_logits.device)
    given = torch.tensor(example.ids[start:], device=own_logits.device)
    own, new = own_logits.log_softmax(-1), new_logits.log_softmax(-1)
    row: Row = {
        "tokens": end - start,
        "base_nll": float(cross_entropy(own_logits, given)),
        "rerouted_nll": float(cross_entropy(new_logits, given)),
        "kl": float((own.exp() * (own - new)).sum(-1).mean()),
        "agreement": float((own.argmax(-1) == new.argmax(-1)).float().mean()),
    }
    if layers:
        pairs = [
            (old.float(), changed.to(old.device).float())
            for old, changed in zip(own_states, new_states, strict=True)
        ]
        row["drift"] = [
            float(((changed - old).norm(dim=-1) / old.norm(dim=-1).clamp_min(1e-6)).mean())
            for old, changed in pairs
        ]
        row["cosine"] = [float(cosine_similarity(changed, old, dim=-1).mean()) for old, changed in pairs]
    return row


def _read(target: Target, ids: Sequence[int], start: int, layers: bool) -> tuple[Tensor, list[Tensor]]:
    """Logits (T, V) that predict the tokens from `start` on, float32, and their hidden states (T, D) by layer."""
    device = next(target.model.parameters()).device
    output = target.model(
        torch.tensor([list(ids)], device=device),
        use_cache=False,
        output_hidden_states=layers,
        logits_to_keep=len(ids) - start + 1,
    )
    states = [state[0, start:] for state in output.hidden_states] if layers else []
    return output.logits[0, :-1].float(), states


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
