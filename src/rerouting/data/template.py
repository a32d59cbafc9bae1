"""What a tokenizer's chat template says about a chat: the prompt's text, and how an assistant's turn ends.

No template is copied here: the text before the answer is what the template writes before a placeholder
answer, or with its own generation prompt; the end of the turn is what it writes after the placeholder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from rerouting.core.errors import UserError
from rerouting.core.prompts import takes_pictures
from rerouting.core.records import Call, Chat, Message, Tool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANSWER = "PLACEHOLDER-ANSWER"


def prompt_text(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat up to where the assistant begins to write.

    A template without a generation prompt is made to show the opening of an assistant's turn. A template that
    refuses or silently drops a system turn gets the system text at the head of the first user turn. A system
    prompt that the template adds by itself is the model's own habit and stays.

    Raises:
        UserError: no chat template, or one that refuses these turns.
    """
    return prompt_turns(chat, tokenizer)[1]


def prompt_turns(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[Message, ...], str]:
    """The turns as the template takes them, and their text; see `prompt_text`."""
    system = next((turn.content.strip() for turn in chat.messages if turn.role == "system"), "")
    messages = chat.messages
    try:
        text = _prompt_text(messages, tokenizer, chat.tools)
    except Exception as error:  # templates raise through jinja2, but also TypeError, KeyError, …
        _require_template(tokenizer)
        if not system:
            raise refused(chat, error) from error
        text = ""
    if system not in text:
        messages = fold_system(chat.messages)
        try:
            text = _prompt_text(messages, tokenizer, chat.tools)
        except Exception as error:
            raise refused(chat, error) from error
    return messages, text


def header_ids(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that open the assistant's answer to a chat (`<|im_start|>assistant` …), the last tokens of its prompt.

    At the last of them the response's first token is chosen; where the template writes no header, that one alone.

    Raises:
        UserError: see `prompt_text`.
    """
    messages, text = prompt_turns(chat, tokenizer)
    texts = text, render(messages, tokenizer, False, chat.tools)
    whole, before = (
        list(tokenizer(one, add_special_tokens=False, verbose=False)["input_ids"]) for one in texts
    )
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(whole, before, strict=False)))
    return whole[min(shared, len(whole) - 1) :]


def closing_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that end an assistant's turn, up to and including the first added token (`<|im_end|>`,
    `</s>`, …).

    What the template writes after that (a line break, a further end of text) is never generated, so it is
    left out. Empty if the template ends no turn.

    Raises:
        UserError: no chat template, or one that does not write the assistant's text.
    """
    try:
        text = render((Message("user", "Hello"), Message("assistant", _ANSWER)), tokenizer, generate=False)
    except Exception as error:
        _require_template(tokenizer)
        raise UserError(
            f"the chat template fails on a plain exchange: {_line(error)}", "mend the template"
        ) from error
    _, found, ending = text.rpartition(_ANSWER)
    if not found:
        raise UserError(
            "the chat template does not write the assistant's text", "mend the tokenizer's chat template"
        )
    ids = list(tokenizer(ending, add_special_tokens=False)["input_ids"]) if ending else []
    added = set(tokenizer.added_tokens_decoder)
    for place, token in enumerate(ids):
        if token in added:
            return ids[: place + 1]
    return ids


def fold_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The turns without system turns, whose text now begins the first user turn, an empty line between."""
    system = "\n\n".join(turn.content for turn in messages if turn.role == "system")
    turns = [turn for turn in messages if turn.role != "system"]
    place = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
    if system and place is not None:
        turns[place] = replace(turns[place], content=f"{system}\n\n{turns[place].content}".rstrip())
    return tuple(turns)


def _prompt_text(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, tools: Sequence[Tool]
) -> str:
    text = render(messages, tokenizer, True, tools)
    if text != render(messages, tokenizer, False, tools):
        return text
    # The template has no generation prompt: what it writes before an assistant's text is the opening.
    before, found, _ = render((*messages, Message("assistant", _ANSWER)), tokenizer, False, tools).rpartition(
        _ANSWER
    )
    return before.rstrip(" ") if found else text


def render(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    generate: bool,
    tools: Sequence[Tool] = (),
) -> str:
    """What the template writes: the turns, and with `generate` the opening of an assistant's turn."""
    ids = _call_ids(messages)
    parts = takes_pictures(tokenizer)  # such templates are written for lists of parts
    turns = [_turn(message, own, parts) for message, own in zip(messages, ids, strict=True)]
    given: dict[str, Any] = {"tools": [_schema(tool) for tool in tools]} if tools else {}
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate, **given))


def _turn(message: Message, ids: Sequence[str], parts: bool) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if parts:
        text = [{"type": "text", "text": message.content}]
        turn["content"] = [*({"type": "image"} for _ in message.images), *text]
    if message.calls:
        turn["tool_calls"] = [_call(call, own) for call, own in zip(message.calls, ids, strict=True)]
    if message.role == "tool":
        turn |= {"name": message.name, "tool_call_id": ids[0]}
    return turn


def _call(call: Call, identity: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"type": "function", "id": identity, "function": function}


def _schema(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _call_ids(messages: Sequence[Message]) -> list[list[str]]:
    """Nine letters and digits a call, as Mistral's templates demand; results take those of the calls before them."""
    count, waiting = 0, list[str]()
    found: list[list[str]] = []
    for message in messages:
        if message.role == "tool":
            found.append([waiting.pop(0) if waiting else f"call{count:05d}"])
            continue
        waiting = [f"call{count + at:05d}" for at in range(len(message.calls))]
        count += len(message.calls)
        found.append(list(waiting))
    return found


def _require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"the tokenizer of {getattr(tokenizer, 'name_or_path', '') or 'this model'} has no chat template",
            "use the instruction-tuned model, or put a chat_template into its tokenizer_config.json",
        )


def refused(chat: Chat, error: Exception) -> UserError:
    """What to say where the template raised an error."""
    roles = ", ".join(turn.role for turn in chat.messages)
    way_out = "user and assistant turns must alternate and end with the user's; remove or mend the chat"
    if chat.tools or chat.calls or any(turn.calls for turn in chat.messages):
        way_out = (
            "it may want one call a turn, or no functions at all: write them as text (data.tool_text.as_text, "
            "or the option `style` of the data source)"
        )
    return UserError(f"the chat template refuses {chat.id} (turns: {roles}): {_line(error)}", way_out)


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
