"""A small vision-language model of the LLaVA family around a language model, with an untrained eye.

transformers' own `LlavaForConditionalGeneration` with a Swin vision tower of two million weights, which learns from far
fewer pictures than a ViT does (docs/log.md), and the usual two-layer projector. The language model's weights,
vocabulary and answers to text are what they were: the picture's mark is one of the vocabulary's unused special tokens.
`pipeline.small_vlm` trains the eye.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

from rerouting.core.errors import UserError
from rerouting.models.images import Reader
from rerouting.models.loading import LoadedModel
from rerouting.pictures.scenes import SIZE

PATCH = 16
"""Pixels that a patch has at the tower's end; 6 × 6 a picture, each a token."""
MARKS = ("<image>", "<empty_output>", "<|image_pad|>", "<|reserved_special_token_0|>")
"""Special tokens that may be the picture's mark; the first that the vocabulary has is."""
VISION: dict[str, Any] = {
    "image_size": SIZE,
    "patch_size": 4,
    "embed_dim": 48,
    "depths": [2, 2, 4],
    "num_heads": [2, 4, 8],
    "window_size": 6,
    "drop_path_rate": 0.0,
}
"""Two halvings of 24 × 24 patches; in the last four blocks a window is the whole picture."""


def small_vlm(language: LoadedModel, seed: int = 0, vision: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """The model in the language model's dtype and place, with a new vision tower and projector; and its processor.

    Args:
        language: chat model whose weights it takes over; not to be used any more.
        seed: of the new weights.
        vision: other values for the vision tower's config.

    Raises:
        UserError: the vocabulary has no special token to spare, or the tokenizer no chat template.
    """
    tokenizer = language.tokenizer
    mark = next((one for one in MARKS if one in tokenizer.get_vocab()), None)
    if mark is None:
        raise UserError(
            f"the vocabulary of {language.name} has none of {', '.join(MARKS)}",
            "add a special token <image> to it",
        )
    text = language.model.config
    config = transformers.LlavaConfig(
        vision_config=transformers.SwinConfig(**VISION | (vision or {})),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(mark),
        image_seq_length=(SIZE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.LlavaForConditionalGeneration(config)
    model.model.language_model = language.model.base_model
    model.lm_head = language.model.get_output_embeddings()
    model.generation_config = language.model.generation_config
    model.config._attn_implementation = text._attn_implementation
    _scale(model.model.multi_modal_projector, language.model.get_input_embeddings().weight)
    model.to(language.device).requires_grad_(False).eval()
    tokenizer.chat_template = _with_marks(tokenizer.chat_template, mark)
    images = transformers.models.siglip.image_processing_pil_siglip.SiglipImageProcessorPil(
        size={"height": SIZE, "width": SIZE}
    )
    processor = transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        image_token=mark,
        chat_template=tokenizer.chat_template,
    )
    Reader(processor, model, tokenizer)
    return model, processor


def _scale(projector: Any, embeddings: torch.Tensor) -> None:
    """What the projector puts out begins about as large as the embeddings of words are."""
    size = float(embeddings[:: max(1, len(embeddings) // 4096)].float().pow(2).mean().sqrt())
    width = projector.linear_2.weight.shape[1]
    with torch.no_grad():
        nn.init.normal_(projector.linear_1.weight, std=projector.linear_1.weight.shape[1] ** -0.5)
        nn.init.normal_(projector.linear_2.weight, std=1.5 * size * width**-0.5)


def _with_marks(template: str | None, mark: str) -> str:
    """The template, told to write the parts of a turn: the picture's mark, a line break, the text.

    Raises:
        UserError: there is none.
    """
    if not template:
        raise UserError("the language model has no chat template", "take the chat (instruct) version")
    return (
        "{% set whole = messages %}{% set found = namespace(turns=[]) %}{% for turn in whole %}"
        "{% if turn['content'] is string %}{% set text = turn['content'] %}{% else %}"
        "{% set parts = namespace(text='') %}{% for part in turn['content'] %}"
        f"{{% set parts.text = parts.text + ('{mark}\\n' if part['type'] == 'image' else part['text']) %}}"
        "{% endfor %}{% set text = parts.text %}{% endif %}"
        "{% set found.turns = found.turns + [{'role': turn['role'], 'content': text}] %}{% endfor %}"
        "{% set messages = found.turns %}" + template
    )
