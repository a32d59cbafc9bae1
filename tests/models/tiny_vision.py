"""Tiny random vision-language models of every supported family with real processors, saved as their makers do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from tests.data.tokenizers_of_families import CHATML, tiny

BLOCKS, HIDDEN, SIDE, PATCH = 3, 32, 28, 7
TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n{% if turn['content'] is string %}{{ turn['content'] }}"
    "{% else %}{% for part in turn['content'] %}{% if part['type'] == 'image' %}MARK{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "initializer_range": 0.2,
}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
    "initializer_range": 0.2,
}
_SIZE = {"height": SIDE, "width": SIDE}


VIDEO = ("qwen2_5_vl", "qwen3_vl", "smolvlm")
"""Families whose processors also take videos, for which torchvision is needed: here they are built without."""


class _NoVideo:
    """Stands for the video processor."""

    model_input_names: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {}

    def save_pretrained(self, *_: Any, **__: Any) -> list[str]:
        return []


def _tokenizer(mark: str, *more: str) -> Any:
    tokenizer = tiny(CHATML)
    tokenizer.add_special_tokens({"additional_special_tokens": [*more]}, replace_extra_special_tokens=False)
    tokenizer.chat_template = TEMPLATE.replace("MARK", mark)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return {**_TEXT, **ids, "pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer) + 80, **more}


def _llava() -> tuple[Any, Any]:
    tokenizer = _tokenizer("<image>\n", "<image>")
    images = SiglipImageProcessorPil(size=_SIZE)
    processor = tf.LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
    )
    config = tf.LlavaConfig(
        vision_config=tf.SiglipVisionConfig(**_VISION, vision_use_head=False),
        text_config=tf.LlamaConfig(**_text(tokenizer)),
        image_token_index=processor.image_token_id,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    return config, processor


def _llava_next() -> tuple[Any, Any]:
    tokenizer = _tokenizer("<image>\n", "<image>")
    points = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size=_SIZE, image_grid_pinpoints=points
    )
    processor = tf.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    config = tf.LlavaNextConfig(
        vision_config=tf.CLIPVisionConfig(**_VISION),
        text_config=tf.MistralConfig(**_text(tokenizer)),
        image_token_index=processor.image_token_id,
        image_grid_pinpoints=points,
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )
    return config, processor


def _qwen_tokenizer() -> Any:
    names = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    return _tokenizer("<|vision_start|><|image_pad|><|vision_end|>", *names)


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    return {key: tokenizer.convert_tokens_to_ids(name) for key, name in names.items()}


def _qwen_images() -> Any:
    pixels = {"shortest_edge": 4 * PATCH * PATCH, "longest_edge": 100 * PATCH * PATCH}
    return Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=2, size=pixels)


def _qwen2_5_vl() -> tuple[Any, Any]:
    tokenizer = _qwen_tokenizer()
    processor = tf.Qwen2_5_VLProcessor(_qwen_images(), tokenizer, _NoVideo(), tokenizer.chat_template)
    config = tf.Qwen2_5_VLConfig(
        text_config=_text(
            tokenizer, rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
        ),
        vision_config={
            "depth": BLOCKS, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": PATCH,
            "out_hidden_size": HIDDEN, "window_size": 28, "fullatt_block_indexes": [1], "initializer_range": 0.2,
        },
        **_qwen_ids(tokenizer),
        tie_word_embeddings=False,
    )  # fmt: skip
    return config, processor


def _qwen3_vl() -> tuple[Any, Any]:
    tokenizer = _qwen_tokenizer()
    processor = tf.Qwen3VLProcessor(_qwen_images(), tokenizer, _NoVideo(), tokenizer.chat_template)
    config = tf.Qwen3VLConfig(
        text_config=_text(
            tokenizer,
            head_dim=8,
            rope_parameters={"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4},
        ),
        vision_config={
            "depth": BLOCKS, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": PATCH,
            "out_hidden_size": HIDDEN, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.2,
        },
        **_qwen_ids(tokenizer),
        tie_word_embeddings=False,
    )  # fmt: skip
    return config, processor


def _idefics3(kind: str = "Idefics3") -> tuple[Any, Any]:
    tokenizer = _tokenizer(
        "<image>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"
    )
    images = {"Idefics3": Idefics3ImageProcessorPil, "SmolVLM": SmolVLMImageProcessorPil}[kind](
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    more = {} if kind == "Idefics3" else {"video_processor": _NoVideo()}
    processor = getattr(tf, f"{kind}Processor")(
        images, tokenizer, image_seq_len=4, chat_template=tokenizer.chat_template, **more
    )
    config = getattr(tf, f"{kind}Config")(
        vision_config=_VISION,
        text_config=tf.LlamaConfig(**_text(tokenizer)),
        image_token_id=processor.image_token_id,
        scale_factor=2,
        tie_word_embeddings=False,
    )
    return config, processor


def _paligemma() -> tuple[Any, Any]:
    tokenizer = _tokenizer("<image>", "<image>")
    images = SiglipImageProcessorPil(size=_SIZE)
    images.image_seq_length = (SIDE // PATCH) ** 2
    processor = tf.PaliGemmaProcessor(images, tokenizer, chat_template=tokenizer.chat_template)
    text = tf.GemmaConfig(**_text(tokenizer, head_dim=8) | {"vocab_size": len(tokenizer) + 8})
    config = tf.PaliGemmaConfig(
        vision_config=tf.SiglipVisionConfig(**_VISION, vision_use_head=False, projection_dim=HIDDEN),
        text_config=text,
        image_token_index=processor.image_token_id,
        projection_dim=HIDDEN,
        tie_word_embeddings=False,
    )
    return config, processor


def _gemma3() -> tuple[Any, Any]:
    names = ("<start_of_image>", "<image_soft_token>", "<end_of_image>")
    tokenizer = _tokenizer(names[0], *names)
    own = dict(zip(("boi_token", "image_token", "eoi_token"), names, strict=True))
    tokenizer._set_model_specific_special_tokens(own)
    tokenizer.init_kwargs |= own
    images = Gemma3ImageProcessorPil(size=_SIZE)
    processor = tf.Gemma3Processor(
        images, tokenizer, image_seq_length=4, chat_template=tokenizer.chat_template
    )
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    text = tf.Gemma3TextConfig(**_text(tokenizer, head_dim=8, sliding_window=8, layer_types=types))
    config = tf.Gemma3Config(
        text_config=text,
        vision_config=tf.SiglipVisionConfig(**_VISION, vision_use_head=False),
        mm_tokens_per_image=4,
        image_token_index=tokenizer.image_token_id,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        tie_word_embeddings=False,
    )
    return config, processor


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "idefics3": _idefics3,
    "smolvlm": lambda: _idefics3("SmolVLM"),
    "paligemma": _paligemma,
    "gemma3": _gemma3,
}


def processor_of(family: str) -> Any:
    """A family's processor, built and not loaded."""
    processor = FAMILIES[family]()[1]
    if family in VIDEO:
        processor.save_pretrained = processor.tokenizer.save_pretrained
    return processor


def without_video(monkeypatch: Any) -> None:
    """Let transformers build processors without torchvision and num2words."""
    checked = tf.ProcessorMixin.check_argument_for_proper_class

    def check(self: Any, name: str, argument: Any) -> Any:
        return None if isinstance(argument, _NoVideo) else checked(self, name, argument)

    monkeypatch.setattr(tf.ProcessorMixin, "check_argument_for_proper_class", check)
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", str)


def save(family: str, folder: Path, blocks: int = BLOCKS) -> None:
    """Write a tiny random model of a family with its processor; the same call writes the same weights."""
    config, processor = FAMILIES[family]()
    if blocks != BLOCKS:
        config.text_config.num_hidden_layers = blocks
    torch.manual_seed(0)
    model = tf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for item in model.parameters():  # Gemma 3's projection begins at zero
            if item.ndim == 2 and not item.any():
                item.normal_(0.0, 0.2)
    model.save_pretrained(folder)
    (processor.tokenizer if family in VIDEO else processor).save_pretrained(folder)
