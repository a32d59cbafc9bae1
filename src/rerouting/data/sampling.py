"""On-policy completions: the base model answers the prompts itself, some of them after an affirmative prefix.

Ours (the paper's completions come from an uncensored model): what is rerouted should be what *this* model
writes when it complies. Both kinds are needed: completions after a prefix alone teach the breaker nothing
about direct requests (docs/log.md).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rerouting.core.attempt import opening_of
from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.data.cache import CompletionCache, completion_key
from rerouting.data.formatting import encode, render_prompt
from rerouting.data.tool_template import call_opening

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Generate = Callable[[list[list[int]]], list[list[int]]]
"""Prompts' token ids to the new token ids of each, with or without the end-of-turn token, without padding."""


def sample_completions(
    generate: Generate,
    chats: Sequence[Chat],
    tokenizer: PreTrainedTokenizerBase,
    *,
    prefixed: float = 0.0,
    prefix_ending: str = "",
    seed: int = 0,
    max_prompt: int | None = None,
    cache: CompletionCache | None = None,
    identity: Mapping[str, Any] | None = None,
) -> list[Chat]:
    """The chats answered by the model; those it answered with nothing are left out (compare the lengths).

    A prefixed chat's response begins with its prefix, which so becomes part of what is trained on. `meta`
    says how each response came about: `on_policy` true, `prefix`, and `cut_off` true where the model did not
    end its turn.

    Args:
        generate: see `Generate`.
        chats: their own responses, if any, are replaced; the function that a chat without a target calls is what its
            completion is made to begin with.
        tokenizer: a transformers tokenizer with a chat template.
        prefixed: share (0 to 1) of the chats, chosen by the seed, that is answered after the chat's target.
        prefix_ending: what follows the target in the prefix; where it is not empty, the target's final full
            stop or colon is dropped first.
        seed: chooses the prefixed chats.
        max_prompt: tokens kept of each prompt, its middle being cut; None for all.
        cache: where completions are looked up and kept; None for nowhere.
        identity: what determines a completion besides the prompts (weights, settings, seed); needed with a
            cache. Its `max_new_tokens`, if there, tells a completion that was cut from one that ended.

    Raises:
        UserError: a share outside 0 to 1, a chat to prefix without a target, or a template that refuses a
            chat.
    """
    assert cache is None or identity, "a cache needs an identity"
    prefixes = _prefixes(chats, prefixed, prefix_ending, seed, tokenizer)
    prompts = [
        render_prompt(chat, tokenizer, prefix, max_prompt)
        for chat, prefix in zip(chats, prefixes, strict=True)
    ]
    completions = _cached(generate, prompts, cache, identity or {})
    limit = (identity or {}).get("max_new_tokens")
    answered = [
        _answered(chat, prefix, completion, tokenizer, limit)
        for chat, prefix, completion in zip(chats, prefixes, completions, strict=True)
    ]
    return [chat for chat in answered if chat is not None]


def _prefixes(
    chats: Sequence[Chat], share: float, ending: str, seed: int, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    if not 0 <= share <= 1:
        raise UserError(f"prefixed is {share}", "give the share of completions to prefix, from 0 to 1")
    chosen = set(random.Random(f"{seed}/prefix").sample(range(len(chats)), round(share * len(chats))))
    for index in sorted(chosen):
        if not (chats[index].target or chats[index].calls):
            raise UserError(
                f"{chats[index].id} has no target to begin with",
                "set prefixed 0, or give every chat a target",
            )
    return [_prefix(chat, ending, tokenizer) if at in chosen else "" for at, chat in enumerate(chats)]


def _prefix(chat: Chat, ending: str, tokenizer: PreTrainedTokenizerBase) -> str:
    if not chat.target:
        return call_opening(chat, tokenizer)
    return opening_of(chat.target, ending) if ending else chat.target.rstrip()


def _cached(
    generate: Generate, prompts: list[list[int]], cache: CompletionCache | None, identity: Mapping[str, Any]
) -> list[list[int]]:
    key = completion_key(identity, prompts) if cache else ""
    rows = cache.get(key) if cache else None
    if rows is not None and len(rows) == len(prompts):
        return [list(row["ids"]) for row in rows]
    completions = generate(prompts)
    assert len(completions) == len(prompts), "generate must answer every prompt"
    if cache:
        cache.put(key, [{"ids": [int(token) for token in completion]} for completion in completions])
    return completions


def _answered(
    chat: Chat, prefix: str, completion: list[int], tokenizer: PreTrainedTokenizerBase, limit: int | None
) -> Chat | None:
    """The chat with its response, or None if the model wrote nothing but blanks."""
    head = encode(tokenizer, prefix) if prefix else []
    special = bool(chat.tools)  # a call may begin with a special token, as Mistral's do
    text = _without_end(completion, tokenizer) if special else completion
    before, whole = _decode(tokenizer, head, special), _decode(tokenizer, head + text, special)
    # Together, because a sentencepiece tokenizer drops the blank before the first word of what it decodes.
    written = whole[len(before) :] if whole.startswith(before) else _decode(tokenizer, text, special)
    if not written.strip():
        return None
    ended = completion[-1] in tokenizer.added_tokens_decoder or (
        limit is not None and len(completion) < limit
    )
    meta = {**chat.meta, "on_policy": True, "prefix": prefix, "cut_off": not ended}
    meta.pop("first_response", None)
    response = prefix + written if prefix else written.lstrip()
    return replace(chat, response=response, calls=(), meta=meta)


def _without_end(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens before the special ones that end a turn."""
    end = len(ids)
    while end and ids[end - 1] in tokenizer.all_special_ids:
        end -= 1
    return ids[:end]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int], special: bool) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False))
