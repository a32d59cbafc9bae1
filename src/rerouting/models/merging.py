"""Base model plus adapter as one ordinary checkpoint.

W + (alpha / rank) · B A is computed in float32 and stored in the base's own number format. Tensors without an
adapter (the upper blocks, embeddings, norms, the head) are written bit for bit as they were, which is checked on
what was read back from the disk.

How well the merged model agrees with adapter-on-base is measured on a probe input, as the largest logit
difference over the largest logit. In float32 storage the two differ by the order of additions only: tolerance
1e-4. In bfloat16 or float16 the merged weights are rounded once more (relative 2⁻⁹ or 2⁻¹²) where the adapter
kept its float32, and every block adds its own share: tolerance 5e-2 and 1e-2, small updates may be rounded
away, and the router of a mixture of experts may choose otherwise. Beyond its tolerance a float32 merge is
refused (something is wrong), a 16-bit one reported. Pass float32 for an exact copy, at twice the size.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from rerouting.core.errors import UserError
from rerouting.models.adapter_files import load_adapter
from rerouting.models.folders import refuse_foreign, whole_folder
from rerouting.models.hardware import DTYPES
from rerouting.models.images import load_processor, model_class, takes_images
from rerouting.models.layers import unwrapped
from rerouting.models.loading import quiet
from rerouting.models.lora import adapted_names

_MARKER = "merged_from.json"
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class MergeReport:
    """What merging did.

    Attributes:
        folder: the merged checkpoint.
        dtype: number format of its weights.
        merged: tensors changed by the adapter.
        untouched: tensors equal to the base's, bit for bit (after conversion, if another format was asked for).
        max_logit_difference: merged against adapter-on-base on the probe, over the largest logit.
        tolerance: what was allowed.
    """

    folder: Path
    dtype: str
    merged: int
    untouched: int
    max_logit_difference: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the merged model does what adapter-on-base does, within the tolerance."""
        return self.max_logit_difference <= self.tolerance


def merge_to(
    folder: Path,
    base_model_path: Path | str,
    adapter_folder: Path,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    *,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> MergeReport:
    """Write the merged model, tokenizer and generation config; whole or not at all.

    Args:
        folder: where to; an earlier merged model of ours there is replaced, anything else refused.
        base_model_path: folder of the base checkpoint (`LoadedModel.base_model_path`).
        adapter_folder: what `save_adapter` wrote.
        dtype: number format of the result; auto: that of the base checkpoint.
        trust_remote_code: run code that comes with the base model.
        allow_pickle: also read pickled weights of the base model.

    Raises:
        UserError: base or adapter cannot be read or do not match, the folder is taken, the disk is full, or the
            merged model does not agree with adapter-on-base.
    """
    folder = Path(folder)
    refuse_foreign(folder, _MARKER)
    wanted = "auto" if dtype == "auto" else DTYPES[dtype]
    model, tokenizer = _base(base_model_path, wanted, trust_remote_code, allow_pickle)
    storage = model.dtype
    probe = _probe(model)
    adapted = load_adapter(model, adapter_folder).eval()
    touched = {_parameter_name(name, adapted) for name in adapted_names(adapted)}
    expected = _logits(adapted, probe)
    _merge_in_place(adapted)
    merged = adapted.unload()
    before = {name: _digest(item) for name, item in merged.state_dict().items() if name not in touched}
    with whole_folder(folder, _MARKER) as work:
        with quiet():
            merged.save_pretrained(work)
            tokenizer.save_pretrained(work)
            del adapted, model, merged
            again, _ = _base(work, storage, trust_remote_code)
        _check_untouched(before, again, work)
        difference = _difference(_logits(again, probe), expected)
        name = str(storage).removeprefix("torch.")
        report = MergeReport(
            folder, name, len(touched), len(before), difference, TOLERANCE.get(storage, 5e-2)
        )
        if storage == torch.float32 and not report.agrees:
            raise UserError(
                f"merged model and adapter-on-base differ: logits by {difference:.2g} of the largest",
                "this should not happen in float32; please report it with the model's name",
            )
        made_of = {"base": str(base_model_path), "adapter": str(adapter_folder), "dtype": name}
        (work / _MARKER).write_text(json.dumps(made_of, indent=2) + "\n", encoding="utf-8")
    return report


def _base(
    path: Path | str, dtype: Any, trust_remote_code: bool, allow_pickle: bool = False
) -> tuple[Any, Any]:
    """Model on the CPU in its storage format, and tokenizer (of a vision-language model its processor)."""
    options = {"trust_remote_code": trust_remote_code, "local_files_only": Path(path).is_dir()}
    try:
        with quiet():
            settings = AutoConfig.from_pretrained(path, **options)
            model = model_class(settings).from_pretrained(
                path,
                dtype=dtype,
                attn_implementation="eager",
                use_safetensors=None if allow_pickle else True,
                **options,
            )
            # a processor saves its tokenizer with itself
            processor = load_processor(str(path), **options) if takes_images(settings) else None
            tokenizer = processor or AutoTokenizer.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the base model at {path} cannot be loaded: {reason}", "check base_model_path"
        ) from error
    generation = model.generation_config
    if generation is not None and not generation.do_sample:
        # some checkpoints carry sampling options beside do_sample=False, which transformers refuses to save
        generation.do_sample = any(
            getattr(generation, key, None) for key in ("temperature", "top_p", "top_k")
        )
    return model.eval(), tokenizer


def _merge_in_place(adapted: nn.Module) -> None:
    """Fold every adapter into its weight, in float32, and store in the weight's own format."""
    for module in list(adapted.modules()):
        if isinstance(module, LoraLayer):
            weight = (
                module.get_param() if isinstance(module, ParamWrapper) else module.get_base_layer().weight
            )
            storage = weight.dtype
            weight.data = weight.data.float()
            module.merge()
            weight.data = weight.data.to(storage)


def _parameter_name(name: str, adapted: nn.Module) -> str:
    """The state-dict name of what an adapter changes: a module's weight, or the bare parameter itself."""
    modules = dict(unwrapped(adapted).named_modules())
    return f"{name}.weight" if name in modules else name


def _probe(model: Any) -> Tensor:
    """Token ids (2, 16), drawn with a fixed seed."""
    size = model.get_input_embeddings().weight.shape[0]
    return torch.randint(0, size, (2, 16), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def _logits(model: Any, probe: Tensor) -> Tensor:
    output = model(input_ids=probe, attention_mask=torch.ones_like(probe), use_cache=False)
    logits: Tensor = output.logits.float().clone()
    return logits


def _difference(merged: Tensor, expected: Tensor) -> float:
    return float((merged - expected).abs().max() / expected.abs().max())


def _digest(item: Tensor) -> bytes:
    flat = item.detach().cpu().contiguous().flatten().view(torch.uint8)
    content: Any = flat.numpy()
    return hashlib.sha256(memoryview(content)).digest()


def _check_untouched(before: dict[str, bytes], again: nn.Module, folder: Path) -> None:
    """Compare what was read back from the disk with the base, tensor by tensor."""
    after = again.state_dict()
    wrong = [name for name, digest in before.items() if name not in after or _digest(after[name]) != digest]
    assert not wrong, f"merging into {folder} changed tensors without an adapter: {wrong[:3]}"
