"""A small network on single tokens' hidden states.

Source: Zou et al. 2024, harmfulness probing: hidden layers of 64 and 32 units, scikit-learn's MLPClassifier in the
authors' notebook. Deviations as in `linear`; training stops early on a tenth of the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rerouting.core.errors import UserError
from rerouting.probes.head import Head, folded, standardised


@dataclass(frozen=True)
class Mlp:
    """ReLU layers and a logit."""

    hidden: tuple[int, ...] = (64, 32)
    """Units of each hidden layer."""
    penalty: float = 1e-4
    """Strength of the L2 penalty."""
    epochs: int = 60
    """Passes over the tokens, at most."""

    def __post_init__(self) -> None:
        if not self.hidden or min(*self.hidden, self.epochs) < 1 or self.penalty < 0:
            raise UserError(
                f"hidden is {list(self.hidden)}, epochs {self.epochs}", "give layers such as [64, 32]"
            )

    def fit(self, harmful: Tensor, harmless: Tensor, seed: int = 0) -> Head:
        """From tokens' states, (P, D) and (N, D), float32; both sides weigh the same."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        states = torch.cat([harmful, harmless])
        mean, deviation = standardised(states)
        labels = [1] * len(harmful) + [0] * len(harmless)
        weights = [len(states) / 2 / len(side) for side in (harmful, harmless) for _ in range(len(side))]
        model = MLPClassifier(
            self.hidden, alpha=self.penalty, max_iter=self.epochs, early_stopping=True, random_state=seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `epochs` is a limit, not a promise
            model.fit(((states - mean) / deviation).numpy(), labels, sample_weight=weights)
        tensors: dict[str, Tensor] = {}
        for at, (weight, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
            own = torch.tensor(weight.T, dtype=torch.float32), torch.tensor(bias, dtype=torch.float32)
            own = folded(*own, mean, deviation) if at == 0 else own
            tensors |= {f"weight.{at}": own[0].contiguous(), f"bias.{at}": own[1]}
        return Head(tensors)
