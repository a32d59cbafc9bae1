"""From a picture's pixels to a model's input, differentiable: what the processor does, found by trying it out.

A picture in a size that the processor leaves alone reaches the model as its own pixels, each shifted, scaled and put
somewhere (in tiles, patches, several times). Where from is read off six pictures whose pixels say their number. Whole
planes that hold the picture in another size (Idefics3's overview) are a product with Pillow's own weights, exact but
for its rounding. All of it is checked on a picture of noise; a processor that does anything else is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from rerouting.core.errors import UserError

EXACT, ROUNDED = 2e-3, 6 / 255
"""How far a value may be off, of a range from 0 to 1: where it is a pixel's, and where it was resized and rounded."""
MOST = 2_000_000
"""Pixels of the largest picture that is tried."""


@dataclass(frozen=True)
class PixelMap:
    """How a processed picture follows from its pixels.

    Attributes:
        width: of the picture, in pixels.
        height: likewise.
        shape: of the processed pixels of one picture, without a batch dimension of one.
        batched: whether that dimension was there.
        source: number of the pixel and colour that each processed value comes from, int64 (E,).
        scale: what it is multiplied by, float32 (E,).
        shift: what is added then, float32 (E,).
        resized: planes that hold the resized picture, int64 (P,); planes are the last three dimensions.
        resize: shares of old columns in new ones (W, w), and of old rows in new ones (H, h).
        others: what the model takes beside pixels (sizes, grids), for one picture.
    """

    width: int
    height: int
    shape: tuple[int, ...]
    batched: bool
    source: Tensor
    scale: Tensor
    shift: Tensor
    resized: Tensor
    resize: tuple[Tensor, Tensor]
    others: dict[str, Tensor]

    def __call__(self, pictures: Tensor) -> dict[str, Tensor]:
        """Inputs of B pictures (B, H, W, 3) of values from 0 to 1; pixel values keep the gradient."""
        flat = pictures.flatten(1)
        values = flat[:, self.source.to(flat.device)]
        if len(self.resized):
            planes = values.view(len(flat), -1, *self.shape[-3:]).clone()
            across, down = (weights.to(flat) for weights in self.resize)
            # Pillow goes across first, and keeps to the range in between
            narrow = torch.einsum("bhwc,wx->bchx", pictures, across).clamp(0, 1)
            small = torch.einsum("bchx,hy->bcyx", narrow, down).clamp(0, 1)
            planes[:, self.resized.to(flat.device)] = small[:, None]
            values = planes.flatten(1)
        values = values * self.scale.to(flat.device) + self.shift.to(flat.device)
        whole = values.view(len(flat), *self.shape)
        pixels = whole if self.batched else whole.flatten(0, 1)
        more = {name: torch.cat([item] * len(flat)).to(flat.device) for name, item in self.others.items()}
        return {"pixel_values": pixels, **more}


def pixel_map(reader: Any, size: tuple[int, int]) -> PixelMap:
    """How the reader's processor treats a picture, in the first size that it leaves alone.

    Args:
        reader: `models.images.Reader`.
        size: width and height that the picture has.

    Raises:
        UserError: it resizes or crops whatever size was tried.
    """
    for width, height in dict.fromkeys(_sizes(reader.processor.image_processor, size)):
        if width * height > MOST:
            continue
        found = _tried(reader.processor.image_processor, width, height)
        if found is not None:
            others = {name: item for name, item in found.others.items() if name in reader.takes}
            return replace(found, others=others)
    raise UserError(
        f"what the processor does to a picture of {size[0]} × {size[1]} pixels cannot be followed",
        "give pictures in a size that it takes as they are",
    )


def _tried(processor: Any, width: int, height: int) -> PixelMap | None:
    """The map of one size; None where the picture does not come through."""
    count = height * width * 3
    numbers = numpy.arange(count).reshape(height, width, 3)
    black, others, batched = _processed(processor, numpy.zeros((height, width, 3), numpy.uint8))
    white, _, _ = _processed(processor, numpy.full((height, width, 3), 255, numpy.uint8))
    if black.shape != white.shape:
        return None
    shift, scale = black.flatten(), (white - black).flatten()
    source = torch.zeros(len(shift), dtype=torch.long)
    for place in range(3):
        digits = ((numbers >> (8 * place)) & 255).astype(numpy.uint8)
        seen = (_processed(processor, digits)[0].flatten() - shift) / scale.where(scale != 0, torch.ones(()))
        source += (seen * 255).round().long().clamp(0, 255) << (8 * place)
    source.clamp_(0, count - 1)
    noise = numpy.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    wanted = _processed(processor, noise)[0].flatten()
    shape, none = tuple(black.shape), torch.empty(0, dtype=torch.long)
    shares = _shares(width, shape[-1], processor), _shares(height, shape[-2], processor)
    found = PixelMap(width, height, shape, batched, source, scale, shift, none, shares, others)
    pixels = torch.from_numpy(noise)[None].float() / 255
    wrong = _apart(found(pixels)["pixel_values"].flatten(), wanted, scale) > EXACT
    if not wrong.any():
        return found
    if len(found.shape) < 3:
        return None
    planes = wrong.view(-1, int(numpy.prod(found.shape[-3:]))).any(dim=1).nonzero().flatten()
    resized = replace(found, resized=planes)
    off = _apart(resized(pixels)["pixel_values"].flatten(), wanted, scale)
    return resized if not (off > ROUNDED).any() and len(planes) * 2 <= found.shape[-4:][0] else None


def _shares(old: int, new: int, processor: Any) -> Tensor:
    """How much of every old row (column) is in every new one when Pillow resizes as the processor asks, (old, new)."""
    filter_of = getattr(processor, "resample", None)
    single = Image.fromarray(numpy.eye(old, dtype=numpy.float32))
    return torch.from_numpy(
        numpy.array(single.resize((new, old), None if filter_of is None else int(filter_of)))
    )


def _apart(found: Tensor, wanted: Tensor, scale: Tensor) -> Tensor:
    return (found - wanted).abs() / scale.abs().clamp_min(1e-6)


def _processed(processor: Any, pixels: Any) -> tuple[Tensor, dict[str, Tensor], bool]:
    """Processed pixels of one picture, the other tensors, and whether there was a batch dimension of one."""
    found = processor(images=[[Image.fromarray(pixels)]], return_tensors="pt")
    tensors = {name: torch.as_tensor(item) for name, item in found.items()}
    values = tensors.pop("pixel_values").float()
    batched = values.ndim > 3 and len(values) == 1
    return (values[0] if batched else values), tensors, batched


def _sizes(processor: Any, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Sizes (width, height) that the processor may leave alone."""
    merged = int(getattr(processor, "merge_size", 0) or 0)
    if merged:  # Qwen: any size in whole merged patches; its limits count pixels
        patch = merged * int(processor.patch_size)
        yield max(2 * patch, size[0] // patch * patch), max(2 * patch, size[1] // patch * patch)
        return
    for name in ("crop_size", "size"):
        own = _edges(getattr(processor, name, None))
        if "height" in own and "width" in own:
            yield own["width"], own["height"]
        for edge in ("shortest_edge", "longest_edge"):
            if edge in own:
                yield own[edge], own[edge]
    for height, width in _pinpoints(processor):
        yield int(width), int(height)
    yield size


def _edges(given: Any) -> dict[str, int]:
    """A processor's size in pixels, by name."""
    names = ("height", "width", "shortest_edge", "longest_edge")
    found = {
        name: given.get(name) if isinstance(given, dict) else getattr(given, name, None) for name in names
    }
    return {name: int(edge) for name, edge in found.items() if edge}


def _pinpoints(processor: Any) -> Sequence[tuple[int, int]]:
    return sorted(getattr(processor, "image_grid_pinpoints", None) or (), key=lambda one: one[0] * one[1])
