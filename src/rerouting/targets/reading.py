"""One text through the whole model, with the pictures in it: what is predicted of its response, and all states."""

from __future__ import annotations

from typing import Any

import torch

from rerouting.data.formatting import Example
from rerouting.models.images import media_of


def whole_pass(model: Any, example: Example, layers: bool) -> Any:
    """transformers' output for one text of T tokens, R of them the response's.

    Args:
        model: causal language model, on one device or sharded.
        example: the text.
        layers: whether hidden states of all layers are wanted, (1, T, D) each.

    Returns:
        Logits (1, R + 1, V): those that predict the response's tokens, and one behind; hidden states if wanted.
    """
    ids, device = list(example.ids), next(model.parameters()).device
    return model(
        input_ids=torch.tensor([ids], device=device),
        use_cache=False,
        output_hidden_states=layers,
        logits_to_keep=len(ids) - example.n_prompt + 1,
        **media_of(model, [ids], [example.n_prompt], example.images, len(ids)),
    )
