"""A tiny random model as a target of attacks, for a given tokenizer."""

import torch
import transformers

from rerouting.core.contracts import Resources, Verdict
from rerouting.models.loading import LoadedModel
from rerouting.targets.target import Target

RESOURCES = Resources(0, lambda judged: [Verdict(False, "no") for _ in judged], assistant=None)


def tiny_target(tokenizer, model=None):
    """A random Llama in float32, or the given model."""
    if model is None:
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            initializer_range=0.2,
            eos_token_id=tokenizer.eos_token_id,
        )
        model = transformers.LlamaForCausalLM(config).requires_grad_(False).eval()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Target(LoadedModel(model, tokenizer, None, "tiny", torch.float32, torch.device("cpu")), 4)
