"""Both models read the same text: how likely it is under each, and how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from rerouting.core.progress import bar
from rerouting.core.records import Chat
from rerouting.data.formatting import Example, tokenise_all
from rerouting.targets.reading import whole_pass
from rerouting.targets.target import Target

Row = dict[str, Any]


def read(
    name: str, chats: Sequence[Chat], base: Target, rerouted: Target, max_tokens: int, layers: bool = False
) -> list[Row]:
    """Compare both models on every chat's response, given all before each token.

    Args:
        name: of the source, for the rows and the progress bar.
        chats: with responses.
        base: the base model.
        rerouted: the rerouted model.
        max_tokens: length at which a text is cut, its request included.
        layers: whether the hidden states of every layer are compared, too.

    Returns:
        A row a chat, of means over its response tokens: `base_nll`, `rerouted_nll`, `kl` (nats a token, from base to
        rerouted), `agreement` (share of tokens with the same likeliest next one); with layers `drift` and `cosine`.
    """
    examples, _ = tokenise_all(chats, base.tokenizer, max_total=max_tokens, mask="response")
    rows: list[Row] = []
    with bar(f"reading {name}", len(examples)) as progress:
        for example in examples:
            rows.append({"source": name, "id": example.chat_id} | _compared(example, base, rerouted, layers))
            progress.advance(1)
    return rows


@torch.inference_mode()
def _compared(example: Example, base: Target, rerouted: Target, layers: bool) -> Row:
    start, end = example.n_prompt, len(example.ids)
    own_logits, own_states = _read(base, example, layers)
    new_logits, new_states = _read(rerouted, example, layers)
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


def _read(target: Target, example: Example, layers: bool) -> tuple[Tensor, list[Tensor]]:
    """Logits (T, V) that predict the response's tokens, float32, and their hidden states (T, D) by layer."""
    output = whole_pass(target.model, example, layers)
    states = [state[0, example.n_prompt :] for state in output.hidden_states] if layers else []
    return output.logits[0, :-1].float(), states
