"""Token ids of a prompt with the pictures that some of them stand for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from rerouting.core.errors import UserError


class Prompt(list[int]):
    """A list of token ids that knows its pictures, by reference, in the order of their places."""

    def __init__(self, ids: Iterable[int], images: Sequence[str] = ()) -> None:
        super().__init__(ids)
        self.images = tuple(images)


def images_of(ids: Any) -> tuple[str, ...]:
    """The pictures of token ids; none for plain ones."""
    return getattr(ids, "images", ())


def followed_by(prompt: Sequence[int], ids: Iterable[int]) -> Prompt:
    """A prompt with more tokens behind, and its pictures."""
    return Prompt([*prompt, *ids], images_of(prompt))


class ImageReader(Protocol):
    """What turns pictures into a model's inputs (models/images.py); tokenizer and model carry it as an attribute."""

    def expand(self, text: str, images: Sequence[str]) -> list[int]:
        """Token ids of a text, a picture's mark standing for as many tokens as the picture takes."""
        ...

    def after_images(self, ids: Sequence[int]) -> int:
        """Number of the token behind the last one that stands for a picture; 0 where none does."""
        ...

    def inputs(
        self,
        rows: Sequence[Sequence[int]],
        prompts: Sequence[int],
        images: Sequence[str],
        width: int,
        left: bool,
    ) -> dict[str, Any]:
        """Tensors that the model takes beside ids and mask, for rows padded to a width on one side."""
        ...


def takes_pictures(owner: Any) -> bool:
    """Whether a tokenizer or model has an image reader."""
    return getattr(owner, "image_reader", None) is not None


def reader_of(owner: Any) -> ImageReader:
    """The image reader of a tokenizer or model.

    Raises:
        UserError: it has none: the model takes text alone.
    """
    if not takes_pictures(owner):
        raise UserError(
            "the model takes no pictures, but the chat has one",
            "take a vision-language model with its processor's files, or text data",
        )
    reader: ImageReader = owner.image_reader
    return reader
