"""What circuit breakers cost: one file a measure (see `core.contracts.Measure`)."""
