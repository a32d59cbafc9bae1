"""Chats to token ids and loss masks, through the tokenizer's own chat template.

Source: arXiv 2406.04313, algorithm 1, and the authors' data code: the prompt through the template, cut at 512
tokens, the response tokenised without special tokens, cut at 512, appended; the loss covers both. Deviations,
each an option: a prompt that is too long loses its middle instead of its end (`cut`), because without its end
it lacks the assistant's header and without its start the first token that attention sinks to; a whole
response ends with the template's end of turn (`close`), which the authors leave out of all but UltraChat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rerouting.core.errors import UserError
from rerouting.core.prompts import Prompt, followed_by, reader_of
from rerouting.core.records import Chat, Tool
from rerouting.data.call_parsing import parse_calls
from rerouting.data.template import closing_ids, header_ids
from rerouting.data.tool_template import response_text, tool_prompt_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MaskKind = Literal["all", "turn", "response", "prompt", "calls"]
"""What counts: everything, the assistant's turn with its header, the response and its end of turn, the prompt, or the
response's function calls alone."""
Cut = Literal["middle", "end"]


@dataclass(frozen=True)
class Example:
    """One tokenised chat of T tokens.

    Attributes:
        ids: token ids (T,), unpadded; the prompt's come first.
        n_prompt: how many of them are the prompt's.
        mask: (T,), which tokens count for the loss.
        chat_id: the chat's id.
        images: pictures that some of the tokens stand for, by reference.
    """

    ids: tuple[int, ...]
    n_prompt: int
    mask: tuple[bool, ...]
    chat_id: str = ""
    images: tuple[str, ...] = ()


def render_prompt(
    chat: Chat,
    tokenizer: PreTrainedTokenizerBase,
    prefix: str = "",
    max_prompt: int | None = None,
    cut: Cut = "middle",
) -> list[int]:
    """Token ids (T,) of the prompt up to where the assistant begins to write, then of `prefix`.

    Of a chat with pictures, a `Prompt`, which knows them.

    Args:
        chat: the turns; its response is not used.
        tokenizer: a transformers tokenizer with a chat template.
        prefix: text that the assistant's answer is made to begin with.
        max_prompt: tokens to keep of the prompt (the prefix is not counted); None for all.
        cut: where a longer prompt loses tokens: its middle, or its end as in the authors' code.

    Raises:
        UserError: the tokenizer has no chat template, or the template refuses this chat.
    """
    text = tool_prompt_text(chat, tokenizer)
    if chat.images:
        ids = Prompt(_whole(reader_of(tokenizer).expand(text, chat.images), chat, max_prompt), chat.images)
        return followed_by(ids, encode(tokenizer, prefix)) if prefix else ids
    plain = _shorten(encode(tokenizer, text), max_prompt, cut)
    return plain + encode(tokenizer, prefix) if prefix else plain


def tokenise(
    chat: Chat,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt: int | None = 512,
    max_response: int | None = 512,
    max_total: int | None = None,
    mask: MaskKind = "all",
    close: bool = True,
    cut: Cut = "middle",
) -> Example:
    """An answered chat as token ids with the loss mask.

    Args:
        chat: an answered chat; `meta["cut_off"]` true marks a response that stops in mid-sentence and is
            never closed; `meta["mask"]` goes before `mask`.
        tokenizer: a transformers tokenizer with a chat template.
        max_prompt: tokens kept of the prompt; None for all.
        max_response: tokens kept of the response, its first; None for all.
        max_total: tokens kept of both together, the first; None for all.
        mask: the part that counts for the loss.
        close: end a whole response with the template's end-of-turn token.
        cut: where a prompt over `max_prompt` loses tokens.

    Raises:
        UserError: the chat has no response, or see `render_prompt`.
    """
    if not chat.is_answered:
        raise UserError(
            f"{chat.id} ({chat.source}) has no response", "name the response column, or set on_policy"
        )
    prompt = render_prompt(chat, tokenizer, max_prompt=max_prompt, cut=cut)
    text = response_text(chat, tokenizer)
    response = encode(tokenizer, text) if text else []
    written = len(response)
    if close and response and not chat.meta.get("cut_off", False):
        response += closing_ids(tokenizer)
    ids = (prompt + response[:max_response])[:max_total]
    n_prompt = min(len(prompt), len(ids))
    mask = chat.meta.get("mask", mask)
    if mask == "calls":
        flags = (False,) * len(prompt) + _in_calls(text, tokenizer, chat.tools)
        selected = (flags + (False,) * (len(response) - written))[: len(ids)]
    else:
        counts_prompt, counts_response = mask in ("all", "prompt"), mask in ("all", "turn", "response")
        selected = (counts_prompt,) * n_prompt + (counts_response,) * (len(ids) - n_prompt)
        if mask == "turn" and len(ids) > n_prompt:
            selected = _with_header(selected, n_prompt, prompt, header_ids(chat, tokenizer))
    if chat.images:
        selected = _after_images(reader_of(tokenizer).after_images(prompt), ids, selected, chat)
    return Example(tuple(ids), n_prompt, selected, chat.id, chat.images)


def _with_header(
    selected: tuple[bool, ...], n_prompt: int, prompt: Sequence[int], header: Sequence[int]
) -> tuple[bool, ...]:
    """The mask with the prompt's last tokens, if they are the header: a prompt that lost its end has none."""
    length = len(header)
    if list(prompt[-length:]) != list(header):
        return selected
    return (*selected[: n_prompt - length], *(True,) * length, *selected[n_prompt:])


def _after_images(end: int, ids: Sequence[int], selected: tuple[bool, ...], chat: Chat) -> tuple[bool, ...]:
    """The mask without what stands before the end of the last picture (paper, multimodal: tokens after the image)."""
    if len(ids) < end:
        raise UserError(
            f"{chat.id} loses part of a picture, which takes {end} tokens with what stands before it",
            "raise data.max_retain",
        )
    return tuple(flag and at >= end for at, flag in enumerate(selected))


def _whole(ids: list[int], chat: Chat, limit: int | None) -> list[int]:
    """A prompt with pictures is never cut."""
    if limit is not None and len(ids) > limit:
        raise UserError(
            f"{chat.id} has a prompt of {len(ids)} tokens with its pictures, more than {limit}",
            "raise data.max_prompt, or take smaller pictures",
        )
    return ids


def _in_calls(text: str, tokenizer: PreTrainedTokenizerBase, tools: Sequence[Tool]) -> tuple[bool, ...]:
    """Of each token of a response, whether a letter of it is a function call's."""
    if not text:
        return ()
    if not tokenizer.is_fast:
        raise UserError(
            "the mask `calls` needs a fast tokenizer, which says where each token stands", "use mask response"
        )
    spans = [(found.start, found.end) for found in parse_calls(text, tools).calls]
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return tuple(
        any(start < last and first < end for first, last in spans) for start, end in places["offset_mapping"]
    )


def tokenise_all(
    chats: Sequence[Chat], tokenizer: PreTrainedTokenizerBase, **options: Any
) -> tuple[list[Example], int]:
    """`tokenise` every chat with the same options.

    An example whose mask selects nothing teaches nothing: it is left out and counted. With mask="all" a
    prompt that fills `max_total` stays, as in the authors' code (UltraChat has long ones).

    Returns:
        The examples in order, and how many chats were left out.

    Raises:
        UserError: no example is left, or none has a token of its response (unless mask="prompt"); or see
            `tokenise`.
    """
    examples = [tokenise(chat, tokenizer, **options) for chat in chats]
    prompt_only = options.get("mask") == "prompt"
    answered = prompt_only or any(len(item.ids) > item.n_prompt for item in examples)
    kept = [item for item in examples if any(item.mask)]
    if chats and not (kept and answered):
        raise UserError(
            f"every response is masked away: all {len(chats)} chats (source: {chats[0].source or 'unnamed'})"
            " have an empty response or lose it to the length limits",
            "check the response column, and raise max_response (max_retain)",
        )
    return kept, len(examples) - len(kept)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of text as it stands, nothing added before or after."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return list(ids)


def _shorten(ids: list[int], limit: int | None, cut: Cut) -> list[int]:
    if limit is None or len(ids) <= limit:
        return ids
    if cut == "end":
        return ids[:limit]
    tail = limit - limit // 2
    return ids[: limit // 2] + ids[len(ids) - tail :]
