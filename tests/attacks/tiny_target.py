"""A tiny random model as a target of attacks, for a given tokenizer, and one whose tokens are words."""

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rerouting.core.contracts import Resources, Verdict
from rerouting.models.loading import LoadedModel
from rerouting.targets.target import Target
from tests.data.tokenizers_of_families import PLAIN

RESOURCES = Resources(0, lambda judged: [Verdict(False, "no") for _ in judged], assistant=None)
_TEXTS = [
    " you bake some bread. then again! cook it well. think of a house. answer: do not stop. garden paths are long?",
    " bake cook house garden" * 9,
]


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


def wordy(sentencepiece=False):
    """Learned tokens of several letters: whole words, and parts of them."""
    tokenizer = Tokenizer(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if sentencepiece:
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        alphabet = ["▁", "\n", *map(chr, range(33, 127))]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=PLAIN, bos_token="<s>", eos_token="</s>"
    )
