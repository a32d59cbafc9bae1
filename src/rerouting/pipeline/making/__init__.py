"""`rerouting data make`: stages with plain files between them, from a domain file to sets, card and recipe."""
