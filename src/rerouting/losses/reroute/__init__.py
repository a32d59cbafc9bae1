"""What happens to the states of the circuit-breaker set: `(adapted, reference, generator) -> (L, N)`.

The generator is seeded by seed and step alone, so every micro-batch of a step draws the same numbers. A
loss may ask for more, by an attribute of its class:

- `places`, names of states of the base model (`rerouting.training.places`): it is then also called with
  `places={name: (L, 1, D)}`, float32;
- `by_sequence = True`: it is then also called with `sequences`, for each of the N tokens the number of its chat in the
  micro-batch, (N,) int64.
"""
