"""Tiny random classifiers on disk, of the architectures that the published ones have."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

SPECIAL = ("<unk>", "<bos>", "<eos>")


def tokenizer_with(words: tuple[str, ...] = ("yes", "no")) -> transformers.PreTrainedTokenizerFast:
    """One token a byte, one for each of the words, and a <bos> put in front."""
    vocabulary = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = []
    for word in words:
        for end in range(1, len(word)):
            merges.append((word[:end], word[end]))
            vocabulary.append(word[: end + 1])
    tokenizer = Tokenizer(models.BPE({token: at for at, token in enumerate(vocabulary)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary.index("<bos>"))]
    )
    names = dict(zip(("unk_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def options(tokenizer: transformers.PreTrainedTokenizerFast) -> dict[str, object]:
    """What both architectures are made with; weights large enough for answers that differ."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 8192,
        "initializer_range": 0.3,
    }


def llama_that_says(folder: Path, says: tuple[str, str], apart: tuple[str, str]) -> Path:
    """A Llama that says the first word after the first prompt, and the second one after the second."""
    tokenizer = tokenizer_with()
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**options(tokenizer), tie_word_embeddings=False)
    ).eval()
    with torch.no_grad():
        ends = [
            model.model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1] for text in apart
        ]
        direction = ends[0] / ends[0].norm() - ends[1] / ends[1].norm()
        model.lm_head.weight.zero_()
        for word, sign in zip(says, (1, -1), strict=True):
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(word)] = sign * direction
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def gemma(folder: Path) -> Path:
    """A random Gemma."""
    tokenizer = tokenizer_with()
    torch.manual_seed(0)
    transformers.GemmaForCausalLM(transformers.GemmaConfig(**options(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pickled(folder: Path) -> Path:
    """The folder with its weights as a pickle instead of safetensors."""
    from safetensors.torch import load_file

    file = folder / "model.safetensors"
    torch.save(load_file(file), folder / "pytorch_model.bin")
    file.unlink()
    return folder


def last_logits(folder: Path, prompt: str) -> torch.Tensor:
    """Logits (V,) after a prompt that stands alone, without padding."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].float()
