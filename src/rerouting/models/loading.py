"""Load a causal language model and its tokenizer, by embedded name, folder, GGUF file or hub name."""

from __future__ import annotations

import difflib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from rerouting.core.allocator import keep_few_kernels, keep_freed_memory
from rerouting.core.errors import UserError
from rerouting.models.config import ModelConfig
from rerouting.models.embedded import EMBEDDED, embedded_file
from rerouting.models.gguf_cache import converted
from rerouting.models.hardware import pick_attention, pick_device, pick_dtype
from rerouting.models.images import Reader, load_processor, model_class, takes_images


@dataclass(frozen=True)
class LoadedModel:
    """A frozen model, ready to run.

    Attributes:
        model: causal language model in evaluation mode, no parameter requires a gradient.
        tokenizer: its tokenizer, with a padding token, padding on the right.
        base_model_path: folder of the checkpoint as loaded (for a GGUF file: as converted).
        name: what the user asked for.
        dtype: number format of the weights.
        device: where they are.
        adapter_path: the adapter that was merged into the weights, where it is at hand.
    """

    model: Any
    tokenizer: Any
    base_model_path: Path | None
    name: str
    dtype: torch.dtype
    device: torch.device
    adapter_path: Path | None = None


def load(config: ModelConfig) -> LoadedModel:
    """Load a model as the config says.

    Raises:
        UserError: no such model or device, unsafe weights or code without leave, NaN or infinite weights.
    """
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    if device.type == "cpu":
        keep_freed_memory()
        keep_few_kernels()
    with quiet():
        source = _resolve(config.name)
        model, tokenizer = _from_pretrained(config, source, dtype, device)
    model.requires_grad_(False).eval()
    _make_greedy(model, tokenizer)
    pack_head_input(model)
    check_finite(model)
    return LoadedModel(model, tokenizer, _folder(config, source), config.name, dtype, device)


def read_config(config: ModelConfig) -> Any:
    """A model's transformers config, without its weights (a GGUF file is converted first).

    Raises:
        UserError: no such model, or its config cannot be read.
    """
    with quiet():
        source = _resolve(config.name)
        try:
            return transformers.AutoConfig.from_pretrained(source, **_access(config, source))
        except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
            raise _explained(config, error) from error


def pack_head_input(model: nn.Module) -> None:
    """Make the LM head's input contiguous, always.

    For a slice of positions (`logits_to_keep`) torch otherwise multiplies row by row, each with a copy of the whole
    head: on a CPU slower than all positions together (docs/log.md).
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    if head is not None:
        head.register_forward_pre_hook(_packed)


def _packed(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (args[0].contiguous(), *args[1:])


@cache
def load_once(name: str, device: str = "auto") -> LoadedModel:
    """A helper's model by name, loaded once a process and shared by all that ask for it.

    Raises:
        UserError: as `load`.
    """
    return load(ModelConfig(name=name, device=device))


@cache
def load_tokenizer(name: str) -> Any:
    """A model's tokenizer by the model's name, without its weights.

    Raises:
        UserError: as `load`.
    """
    config = ModelConfig(name=name)
    source = _resolve(name)
    try:
        return transformers.AutoTokenizer.from_pretrained(source, **_access(config, source))
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise _explained(config, error) from error


def require_chat_template(tokenizer: Any, name: str) -> None:
    """Refuse a tokenizer that cannot format a conversation.

    Raises:
        UserError: it has no chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"the tokenizer of {name} has no chat template",
            "use the chat (instruct) version of the model, or put a chat_template.jinja beside its tokenizer",
        )


def check_finite(model: nn.Module) -> None:
    """Refuse a model with NaN or infinite weights.

    Raises:
        UserError: names the first such tensor.
    """
    for name, item in model.named_parameters():
        if item.is_floating_point() and not bool(item.isfinite().all()):
            bad = int((~item.isfinite()).sum())
            raise UserError(
                f"{bad} of {item.numel()} weights of {name} are NaN or infinite",
                "download or convert the model again; if it is float16, try model.dtype bfloat16 or float32",
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' loading reports and progress bars, and put its settings back."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def hub_answers(timeout: float = 4.0) -> bool:
    """Whether the hub can be reached at all; unasked, offline use would wait a minute for retries."""
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    address = urlsplit(huggingface_hub.constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=timeout).close()
    except OSError:
        return False
    return True


def _resolve(name: str) -> str:
    """What transformers is to load: a folder, or the name itself for the hub."""
    if name in EMBEDDED:
        return str(converted(embedded_file(name)))
    if not name.strip():
        raise UserError("model.name is empty", _ways_out(name))
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"there is no file {path}", "check the path")
        return str(converted(path.absolute()))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(
                f"folder {path} holds no model (config.json is missing)", "give a checkpoint's folder"
            )
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"there is no model folder {name!r}", _ways_out(name))
    return name


def _access(config: ModelConfig, source: str) -> dict[str, Any]:
    """How transformers may reach for the source's files."""
    return {
        "revision": config.revision,
        "trust_remote_code": config.trust_remote_code,
        "local_files_only": Path(source).is_dir() or not hub_answers(),
    }


def _from_pretrained(
    config: ModelConfig, source: str, dtype: torch.dtype, device: torch.device
) -> tuple[Any, Any]:
    common = _access(config, source)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **common)
        settings = transformers.AutoConfig.from_pretrained(source, **common)
        model = model_class(settings).from_pretrained(
            source,
            dtype=dtype,
            attn_implementation=pick_attention(config.attention, device),
            use_safetensors=None if config.allow_pickle else True,
            **_placement(config, dtype, device),
            **common,
        )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise _explained(config, error) from error
    if takes_images(settings):
        processor = load_processor(source, **common)
        if processor is not None:
            tokenizer.chat_template = tokenizer.chat_template or processor.chat_template
            Reader(processor, model, tokenizer)
    return model, tokenizer


def _placement(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Where weights go, and in how many bits.

    Raises:
        UserError: bitsandbytes is needed and not installed.
    """
    if config.quantisation == "none":
        return {"device_map": None if device.type == "cpu" else {"": device}}
    if find_spec("bitsandbytes") is None:
        raise UserError(
            "model.quantisation needs bitsandbytes", "pip install 'rerouting[quantised]', or set it to none"
        )
    bits = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.quantisation,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
    )
    return {"device_map": {"": device}, "quantization_config": bits}


def _explained(config: ModelConfig, error: Exception) -> UserError:
    """The user's version of what transformers raised."""
    text = " ".join(str(error).split())
    lowered = text.lower()
    if "trust_remote_code" in lowered:
        return UserError(
            f"model {config.name} needs code of its own", "set model.trust_remote_code if you trust it"
        )
    if not config.allow_pickle and "model.safetensors" in lowered:
        return UserError(
            f"model {config.name} has no safetensors weights",
            "set model.allow_pickle if you trust the source",
        )
    if isinstance(error, OSError) and not Path(config.name).expanduser().exists():
        return UserError(f"model {config.name!r} was not found: {text[:160]}", _ways_out(config.name))
    return UserError(f"model {config.name} cannot be loaded: {text[:300]}", "check the model and its files")


def _ways_out(name: str) -> str:
    near = difflib.get_close_matches(name.lower().rsplit("/", 1)[-1], list(EMBEDDED), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return (
        f"{hint}tried the embedded models ({', '.join(EMBEDDED)}), a local folder, and the hub with its "
        "cache; give one of these, or a .gguf file; gated hub models also need `hf auth login`"
    )


def _make_greedy(model: Any, tokenizer: Any) -> None:
    """Drop the checkpoint's sampling defaults, keep its special tokens, and make sure that padding exists."""
    old = getattr(model, "generation_config", None)
    ends = getattr(old, "eos_token_id", None)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=getattr(old, "bos_token_id", None),
        eos_token_id=tokenizer.eos_token_id if ends is None else ends,
        pad_token_id=tokenizer.pad_token_id,
    )


def _folder(config: ModelConfig, source: str) -> Path | None:
    """The local folder of the checkpoint: given, converted, or the hub cache's snapshot."""
    if Path(source).is_dir():
        return Path(source).resolve()
    found = transformers.utils.cached_file(
        source, "config.json", revision=config.revision, local_files_only=True
    )
    return Path(found).parent if found else None
