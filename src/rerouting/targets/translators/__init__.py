"""Translators: one file each, see `core.contracts.Translator`."""
