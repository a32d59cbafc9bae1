"""Options for loading a model and placing its adapters.

Torch is not imported here, so that `--help` stays fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class ModelConfig:
    """Which model to load, and how."""

    name: str = "smollm2-135m"
    """Embedded name (smollm2-135m), checkpoint folder, .gguf file, or hub name such as Qwen/Qwen3-0.6B."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; auto: bfloat16 where the machine multiplies it natively, else float32."""

    quantisation: Literal["none", "nf4"] = "none"
    """Frozen weights as the checkpoint has them, or in 4 bits (bitsandbytes: pip install 'rerouting[quantised]');
    merged models are written in the checkpoint's format in either case."""

    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """Attention implementation; auto: our own (models/packing.py), the only one with which training packs sequences."""

    blocks: str | None = None
    """Dotted path of the decoder's block list (model.layers), for models where it cannot be found alone."""

    device: str = "auto"
    """Torch device (cpu, cuda, cuda:1, mps); auto: cuda when there is one, else cpu."""

    revision: str | None = None
    """Branch, tag or commit of a hub model."""

    trust_remote_code: bool = False
    """Run Python code that comes with a hub model. Only for sources that you trust."""

    allow_pickle: bool = False
    """Also read pickled weights (.bin), which can run code when opened. Only for sources that you trust."""


@dataclass
class LoraConfig:
    """Low-rank adapters in every linear layer of the lower decoder blocks."""

    rank: int = 16
    """Rank of each adapter."""

    alpha: float = 16.0
    """Adapters are scaled by alpha / rank."""

    dropout: float = 0.05
    """Probability that an adapter's input feature is zeroed while training."""

    first_block: int = 0
    """First decoder block with adapters, counted from 0; those below run once for reference and adapted pass."""

    first_depth: float | None = None
    """The same as a share of the model's depth (0 to below 1), for any model; in place of first_block."""

    last_block: int | None = None
    """Last decoder block with adapters, counted from 0; none: the one that outputs the top target layer."""

    strength: float = 1.0
    """Share of the trained adapter that is saved: `lora_alpha` in its file is alpha times this. Below 1 the model lies
    between the base and what was trained (WiSE-FT, Wortsman et al. 2022; docs/concepts.md has what that changes)."""

    init_b_std: float = 0.0
    """Standard deviation of the initial B matrices; at 0 (usual LoRA) both losses start stationary."""
