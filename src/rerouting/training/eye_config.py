"""Options of `rerouting small-vlm`. Imports nothing heavy: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EyeConfig:
    """A small vision-language model: the language model that it is built around, and how its eye is trained."""

    language: str = "smollm2-135m"
    """Chat model that is to see: embedded name, folder, or hub name."""
    device: str = "auto"
    """Torch device; auto: cuda when there is one, else cpu."""
    pictures: int = 24000
    """Drawn pictures to train on."""
    texts: int = 900
    """Bundled prompts, shown beside pictures, that are to be answered as without one."""
    answer_tokens: int = 32
    """Length at which those answers are cut."""
    see_steps: int = 1500
    """Steps of the first part: the vision tower learns what is on a picture, without the language model."""
    see_batch: int = 256
    """Pictures in one of them."""
    tell_steps: int = 1200
    """Steps of the second part: tower and projector learn to tell the language model."""
    tell_batch: int = 128
    """Questions (or half as many prompts) in one of them."""
    rate: float = 1e-3
    """AdamW's highest rate in the first part, and the projector's in the second, where the tower has a quarter."""
    rank: int = 16
    """Of the LoRA by which the language model learns in the second part to read what it is told, merged at the end; 0
    leaves its weights, and so its answers to text, as they are."""
    seconds: float | None = None
    """Most seconds for both parts (two fifths for the first), over which the rate then falls; null for no limit."""
    test_pictures: int = 600
    """Held-out pictures that a question is asked about at the end."""
    seed: int = 0
    """Of weights and order."""
