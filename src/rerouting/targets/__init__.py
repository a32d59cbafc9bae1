"""The model under attack, and chat models that help: what stands between models, data and the attacks."""
