"""A helper's model of any kind (translator, classifier), as its folder or hub name holds it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError

from rerouting.core.errors import UserError
from rerouting.models.hardware import pick_device
from rerouting.models.loading import hub_answers, quiet


@cache
def pretrained(kind: str, name: str, device: str, allow_pickle: bool) -> tuple[Any, Any]:
    """Model and tokenizer, loaded once a process; frozen, in evaluation mode, in the checkpoint's own dtype.

    Args:
        kind: transformers' class for such models ("AutoModelForCausalLM").
        name: folder or hub name.
        device: "auto" is cuda when there is one.
        allow_pickle: also read pickled weights, which can run code when opened.

    Raises:
        UserError: it cannot be loaded.
    """
    local = Path(name).expanduser()
    common = {"local_files_only": local.is_dir() or not hub_answers()}
    source = str(local) if local.is_dir() else name
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **common)
            model = getattr(transformers, kind).from_pretrained(
                source, use_safetensors=None if allow_pickle else True, dtype="auto", **common
            )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(
            f"model {name!r} cannot be loaded: {text}",
            f"give a folder or hub name that {kind} reads; set allow_pickle if its weights are .bin",
        ) from error
    return model.requires_grad_(False).eval().to(pick_device(device)), tokenizer
