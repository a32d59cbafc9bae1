"""Chat models that attack, judge or translate: one file each, see `core.contracts.ChatModel`."""
