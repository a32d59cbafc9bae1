"""Function calls through the tokenizer's own chat template, or a refusal where it would drop them in silence.

Source: the conventions of transformers' `apply_chat_template(tools=…)`: schemas as JSON, an assistant's `tool_calls`,
and turns of the role "tool". What a model writes when it calls is read off the template, so no family is named here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rerouting.core.errors import UserError
from rerouting.core.records import Call, Chat, Message, Tool
from rerouting.data.call_parsing import parse_calls
from rerouting.data.template import closing_ids, prompt_text, prompt_turns, refused, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = Tool("placeholder_function", "PLACEHOLDER-DESCRIPTION")
_CALL = Message("assistant", "", (Call("placeholder_function", {"letter": "PLACEHOLDER-VALUE"}),))
_RESULT = Message("tool", "PLACEHOLDER-RESULT", name="placeholder_function")


def takes_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template writes schemas, calls and results."""
    return not _dropped(tokenizer)


def tool_prompt_text(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> str:
    """As `prompt_text`, after a look at whether the template writes what the chat has of functions.

    Raises:
        UserError: it does not, or see `prompt_text`.
    """
    _require(chat, tokenizer)
    return prompt_text(chat, tokenizer)


def response_text(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> str:
    """What the assistant writes: the response's text, or what the template makes of it and its calls.

    The end of the turn is not part of it.

    Raises:
        UserError: the template drops or refuses calls, or writes the turns before them otherwise when they are there.
    """
    if not chat.calls:
        return chat.response or ""
    _require(chat, tokenizer)
    messages, prompt = prompt_turns(chat, tokenizer)
    answer = Message("assistant", chat.response or "", chat.calls)
    try:
        full = render((*messages, answer), tokenizer, False, chat.tools)
    except Exception as error:
        raise refused(chat, error) from error
    if not full.startswith(prompt):
        raise UserError(
            f"the chat template writes the turns of {chat.id} otherwise when a call follows them",
            "mend the template, or write calls as text (option `style` of the data source)",
        )
    text, ending = full[len(prompt) :], str(tokenizer.decode(closing_ids(tokenizer)))
    return text.rpartition(ending)[0] if ending and ending in text else text


def call_opening(chat: Chat, tokenizer: PreTrainedTokenizerBase, up_to: str = "name") -> str:
    """How the response begins to make the chat's first call: a forced call.

    Args:
        chat: with calls.
        tokenizer: its template writes them.
        up_to: "name", the opening ends with the function's name; or "arguments", where the first argument begins.

    Raises:
        UserError: see `response_text`.
    """
    assert chat.calls, "only a call has an opening"
    bare = Chat(chat.id, chat.messages, calls=chat.calls[:1], tools=chat.tools)
    return opening_of_call(response_text(bare, tokenizer), chat.calls[0], up_to)


def opening_of_call(text: str, call: Call, up_to: str = "name") -> str:
    """The beginning of a text that makes a call; see `call_opening`.

    Hermes' template writes the arguments before the name, which would give them away: the name is then put first.
    """
    start, first = text.index(call.name), next(iter(call.arguments), "")
    end = start + len(call.name)
    if f'"{first}"' in text[:start]:
        text = f'{text[: text.index("{")]}{{"name": "{call.name}", "arguments": {{"{first}"'
        end = text.index(call.name) + len(call.name)
    if up_to == "arguments" and first:
        return text[: text.index(first, end)].rstrip("\"'")
    return text[:end]


def _require(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> None:
    calls = bool(chat.calls) or any(turn.calls for turn in chat.messages)
    results = any(turn.role == "tool" for turn in chat.messages)
    if not (chat.tools or calls or results):
        return
    needed = {"the functions": bool(chat.tools), "calls": calls, "results": results}
    lost = [name for name in _dropped(tokenizer) if needed[name]]
    if lost and tokenizer.chat_template:
        raise UserError(
            f"the chat template leaves out {' and '.join(lost)} of {chat.id}, or writes them in an unknown style",
            "write them as text: option `style: json` (tagged, pythonic) of the data source, or data.tool_text.as_text",
        )


def _dropped(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What the template does not write, or writes unreadably, of a short chat that has everything."""
    return list(_looked_at(tokenizer, repr(tokenizer.chat_template)))


@lru_cache(maxsize=8)
def _looked_at(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, ...]:
    """The same for a template that a tokenizer has at a time: every chat asks."""
    start = Message("user", "Hello")
    looks = {
        "the functions": ([start], [_PROBE], "placeholder_function"),
        "calls": ([start, _CALL], [_PROBE], "PLACEHOLDER-VALUE"),
        "results": ([start, _CALL, _RESULT], [_PROBE], "PLACEHOLDER-RESULT"),
    }
    lost = []
    for name, (turns, tools, mark) in looks.items():
        try:
            text = render(turns, tokenizer, False, tools)
            written = mark in text and (name != "calls" or _is_read(text))
        except Exception:  # jinja2 and whatever else a template raises: it cannot take them
            written = False
        if not written:
            lost.append(name)
    return tuple(lost)


def _is_read(text: str) -> bool:
    """Whether the call in it can be found: what cannot be read can be neither masked nor scored."""
    return any(found.call in _CALL.calls for found in parse_calls(text, [_PROBE]).calls)
