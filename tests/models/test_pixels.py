"""What a processor does to a picture is followed exactly, in every family, and has a gradient."""

import numpy
import pytest
import torch
from PIL import Image

from rerouting.core.errors import UserError
from rerouting.models.pixels import pixel_map
from tests.models.tiny_vision import FAMILIES, processor_of, without_video


class Bare:
    """A reader as far as pixels go."""

    def __init__(self, processor):
        self.processor, self.takes = (
            processor,
            {"pixel_values", "image_sizes", "image_grid_thw", "pixel_attention_mask"},
        )


@pytest.mark.parametrize("family", list(FAMILIES))
def test_followed_in_every_family(family, monkeypatch):
    without_video(monkeypatch)
    processor = processor_of(family)
    found = pixel_map(Bare(processor), (60, 40))
    noise = numpy.random.default_rng(1).integers(0, 256, (2, found.height, found.width, 3), dtype=numpy.uint8)
    wanted = processor.image_processor(images=[[Image.fromarray(one) for one in noise]], return_tensors="pt")
    pixels = (torch.from_numpy(noise).float() / 255).requires_grad_()
    given = found(pixels)
    values = given["pixel_values"]
    own = torch.as_tensor(wanted["pixel_values"]).float()
    assert values.flatten().shape == own.flatten().shape
    assert (values.flatten() - own.flatten()).abs().max() < (0.05 if len(found.resized) else 1e-3)
    for name in ("image_sizes", "image_grid_thw"):
        if name in given:
            assert torch.equal(given[name], torch.as_tensor(wanted[name]))
    (slope,) = torch.autograd.grad(values.sum(), pixels)
    assert (slope != 0).all() and "num_crops" not in given


def test_a_processor_that_does_something_else_is_refused(monkeypatch):
    processor = processor_of("llava")
    monkeypatch.setattr(processor.image_processor, "size", {"height": 28, "width": 28})
    ours = processor.image_processor.__class__.__call__

    def blurred(self, images, **more):
        smaller = [one.resize((9, 9)) for one in images[0]]
        return ours(self, images=[smaller], **more)

    monkeypatch.setattr(processor.image_processor.__class__, "__call__", blurred)
    with pytest.raises(UserError, match="cannot be followed"):
        pixel_map(Bare(processor), (28, 28))
