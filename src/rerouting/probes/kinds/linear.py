"""Logistic regression on single tokens' hidden states.

Source: Zou et al. 2024, harmfulness probing (section 4.1, Table 2), and the authors' notebook: every response token is
an item, scikit-learn's LogisticRegression with C = 1e-3. Deviation: coordinates are standardised first (folded into the
weights), because a few coordinates of a hidden state are a thousand times larger than the rest; on the paper's own
scale, raw, set `standardise` false.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rerouting.core.errors import UserError
from rerouting.probes.head import Head, folded, standardised


@dataclass(frozen=True)
class Linear:
    """A hyperplane."""

    c: float = 1e-3
    """Inverse strength of the L2 penalty."""
    max_iterations: int = 300
    """Of L-BFGS."""
    standardise: bool = True
    """Give every coordinate mean 0 and deviation 1 first."""

    def __post_init__(self) -> None:
        if self.c <= 0 or self.max_iterations < 1:
            raise UserError(
                f"c is {self.c}, max_iterations {self.max_iterations}", "give numbers above 0, such as c 1e-3"
            )

    def fit(self, harmful: Tensor, harmless: Tensor, seed: int = 0) -> Head:
        """From tokens' states, (P, D) and (N, D), float32; both sides weigh the same."""
        from sklearn.linear_model import LogisticRegression

        states = torch.cat([harmful, harmless])
        mean, deviation = standardised(states)
        if not self.standardise:
            mean, deviation = torch.zeros_like(mean), torch.ones_like(deviation)
        labels = [1] * len(harmful) + [0] * len(harmless)
        model = LogisticRegression(
            C=self.c, max_iter=self.max_iterations, class_weight="balanced", random_state=seed
        )
        model.fit(((states - mean) / deviation).numpy(), labels)
        weight = torch.tensor(model.coef_, dtype=torch.float32)
        bias = torch.tensor(model.intercept_, dtype=torch.float32)
        weight, bias = folded(weight, bias, mean, deviation)
        return Head({"weight.0": weight, "bias.0": bias})
