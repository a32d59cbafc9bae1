"""What every fitted probe is in the end: plain tensors, and a score for each hidden state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rerouting.core.errors import UserError


@dataclass(frozen=True)
class Head:
    """Scores hidden states; higher is more harmful.

    Attributes:
        tensors: `weight.0` (H, D), `bias.0` (H,), … with ReLU between them, down to one unit whose output is a logit;
            or `direction` (D,) and `centre` (D,), whose score is a cosine.
    """

    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if "direction" not in self.tensors and "weight.0" not in self.tensors:
            raise UserError("a probe without weights", "train it again: rerouting probe train RUN")

    @property
    def width(self) -> int:
        """D, the size of the hidden states that it reads."""
        name = "direction" if "direction" in self.tensors else "weight.0"
        return self.tensors[name].shape[-1]

    def scores(self, states: Tensor) -> Tensor:
        """Hidden states (…, D) in any number format to scores (…), float32."""
        states = states.float()
        if "direction" in self.tensors:
            centred = states - self.tensors["centre"].to(states.device)
            return torch.cosine_similarity(centred, self.tensors["direction"].to(states.device), dim=-1)
        for at in range(len(self.tensors) // 2):
            states = states.relu() if at else states
            weight, bias = (self.tensors[f"{name}.{at}"].to(states.device) for name in ("weight", "bias"))
            states = states @ weight.T + bias
        return states[..., 0]


def standardised(states: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each coordinate, (D,); hidden states have a few coordinates of huge size."""
    return states.mean(dim=0), states.std(dim=0).clamp_min(1e-6)


def folded(weight: Tensor, bias: Tensor, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """A first layer on standardised states as one on the states themselves."""
    own = weight / deviation
    return own, bias - own @ mean
