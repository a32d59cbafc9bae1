"""Harmfulness probes on hidden states, and a monitor that stops generation by them."""
