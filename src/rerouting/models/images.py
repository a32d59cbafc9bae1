"""Pictures as inputs of a vision-language model, through the model's own processor.

A picture stands in the token ids as the run of marks that the processor expands it to, so that ids, masks and lengths
need no knowledge of families; pixels and what belongs to them (sizes, grids, token types) are made when a batch is.
Such batches are padded, not packed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from rerouting.core.errors import UserError
from rerouting.core.prompts import reader_of
from rerouting.models.layers import decoder_blocks, unwrapped
from rerouting.pictures.opening import open_picture


def takes_images(config: Any) -> bool:
    """Whether a transformers config is that of a vision-language model that transformers can load."""
    known = transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return getattr(config, "vision_config", None) is not None and type(config) in known


def model_class(config: Any) -> Any:
    """transformers' class for a generating model with this config."""
    return (
        transformers.AutoModelForImageTextToText
        if takes_images(config)
        else transformers.AutoModelForCausalLM
    )


FILES = ("processor_config.json", "preprocessor_config.json")
"""By which a processor is known."""


def load_processor(source: str, **access: Any) -> Any | None:
    """The processor beside a vision-language model; None where there is none, and the model is good for text alone.

    Raises:
        UserError: it is there, and cannot be loaded.
    """
    find = {key: item for key, item in access.items() if key in ("revision", "local_files_only")}
    missing = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    if not any(transformers.utils.cached_file(source, name, **find, **missing) for name in FILES):
        return None
    try:
        return transformers.AutoProcessor.from_pretrained(source, **access)
    except (OSError, ValueError, ImportError, KeyError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(
            f"the processor of {source} cannot be loaded: {text}",
            "mend processor_config.json and preprocessor_config.json beside the model",
        ) from error


class Reader:
    """See `rerouting.core.prompts.ImageReader`.

    Args:
        processor: transformers processor with tokenizer and image processor.
        model: the model that reads the pictures; carries the reader from now on, as the tokenizer does.
        tokenizer: likewise.
    """

    def __init__(self, processor: Any, model: Any, tokenizer: Any) -> None:
        self.processor = processor
        self.marks = {int(mark) for mark in _marks(processor, model.config)}
        self.takes = set(inspect.signature(model.forward).parameters)
        self._prefixed = model.config.model_type == "paligemma"
        self._dtype: torch.dtype = model.get_input_embeddings().weight.dtype
        model.image_reader = tokenizer.image_reader = self

    def expand(self, text: str, images: Sequence[str]) -> list[int]:
        """Token ids of a text, a picture's mark standing for as many tokens as the picture takes.

        Raises:
            UserError: a picture cannot be read, or the text has another number of marks.
        """
        pictures = [open_picture(reference) for reference in images]
        try:
            found = self.processor(text=[text], images=[pictures], add_special_tokens=False)
        except (ValueError, IndexError) as error:
            raise UserError(
                f"the processor cannot take {len(images)} pictures: {' '.join(str(error).split())[:200]}",
                "check that the chat template marks every picture, and that none is a pixel wide",
            ) from error
        ids = [int(token) for token in found["input_ids"][0]]
        if not self.marks.intersection(ids):
            raise UserError(
                "the chat template leaves the picture out", "take the template that belongs to the processor"
            )
        return ids

    def after_images(self, ids: Sequence[int]) -> int:
        """Number of the token behind the last one that stands for a picture; 0 where none does."""
        return max((at + 1 for at, token in enumerate(ids) if token in self.marks), default=0)

    def inputs(
        self,
        rows: Sequence[Sequence[int]],
        prompts: Sequence[int],
        images: Sequence[str],
        width: int,
        left: bool,
    ) -> dict[str, Tensor]:
        """Tensors that the model takes beside ids and mask.

        Args:
            rows: token ids of B sequences.
            prompts: how many of each are the prompt's.
            images: all pictures of all rows, in order.
            width: to which the rows are padded, T.
            left: padding stands on the left.
        """
        if not images:
            return {}
        pictures = [open_picture(reference) for reference in images]
        found = self.processor.image_processor(images=[pictures], return_tensors="pt")
        tensors = {name: torch.as_tensor(item) for name, item in found.items() if name in self.takes}
        tensors |= self.types(rows, prompts, width, left)
        return {
            name: item.to(self._dtype) if item.is_floating_point() else item for name, item in tensors.items()
        }

    def types(
        self, rows: Sequence[Sequence[int]], prompts: Sequence[int], width: int, left: bool
    ) -> dict[str, Tensor]:
        """What the family is told of every token, int64 (B, T): is it a picture's, or (PaliGemma) an answer's."""
        names = [name for name in ("token_type_ids", "mm_token_type_ids") if name in self.takes]
        types = torch.zeros(len(rows), width, dtype=torch.long)
        for row, (ids, prompt) in enumerate(zip(rows, prompts, strict=True) if names else ()):
            start = width - len(ids) if left else 0
            answer = (
                prompt if self.after_images(ids) else 0
            )  # text alone is read from left to right throughout
            for at, token in enumerate(ids):
                types[row, start + at] = at >= answer if self._prefixed else token in self.marks
        return dict.fromkeys(names, types)

    def pixels(self, reference: str) -> Tensor:
        """What the processor makes of one picture's pixels."""
        found = self.processor.image_processor(images=[[open_picture(reference)]], return_tensors="pt")
        return torch.as_tensor(found["pixel_values"])


def media_of(
    model: Any, rows: Sequence[Sequence[int]], prompts: Sequence[int], images: Sequence[str], width: int
) -> dict[str, Tensor]:
    """Pictures and what belongs to them, of rows padded on the right, on the model's device; nothing for text alone.

    Args:
        model: with or without adapters.
        rows: token ids of B sequences.
        prompts: how many of each are the prompt's.
        images: all pictures of all rows, in order.
        width: to which the rows are padded.
    """
    if not images:
        return {}
    inner: Any = unwrapped(model)
    found = reader_of(inner).inputs(rows, prompts, images, width, left=False)
    return {name: item.to(inner.device) for name, item in found.items()}


@torch.no_grad()
def input_embeddings(model: Any, ids: Tensor, mask: Tensor, media: Mapping[str, Tensor]) -> Tensor:
    """Input embeddings of token ids, (B, T, D), with what the vision tower sees in the pictures' places.

    Args:
        model: with or without adapters.
        ids: padded on the right, (B, T).
        mask: 1 for real tokens, (B, T).
        media: as of `media_of`; empty for text alone.

    Raises:
        UserError: from these embeddings the model goes on otherwise than from pictures and ids, because positions or
            attention depend on where the pictures are.
    """
    inner: Any = unwrapped(model)
    table = inner.get_input_embeddings()
    if not media:
        found: Tensor = table(ids).detach()
        return found
    seen: list[Tensor] = []

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["inputs_embeds"])

    handle = decoder_blocks(model).owner.register_forward_pre_hook(look, with_kwargs=True)
    try:
        wanted = inner(input_ids=ids, attention_mask=mask, use_cache=False, **media).logits
    finally:
        handle.remove()
    found = seen[0].detach()
    again = inner(inputs_embeds=found, attention_mask=mask, use_cache=False).logits
    near, real = (1e-3 if found.dtype == torch.float32 else 5e-2), mask.bool()
    if not torch.allclose(again[real].float(), wanted[real].float(), rtol=near, atol=near):
        raise UserError(
            f"{inner.config.model_type} goes on from a picture's embeddings otherwise than from the picture",
            "attack it with image_pgd, or by text alone: sources without pictures",
        )
    return found


def body_of(model: Any) -> Any:
    """What runs the vision tower and the decoder, without the LM head."""
    inner: Any = unwrapped(model)
    return inner.base_model


def _marks(processor: Any, config: Any) -> list[int]:
    found = [one for one in getattr(processor, "image_token_ids", []) if one is not None]
    named = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
    return found or [one for one in named if one is not None]
