"""A prompt with a slot at the end of the user's turn, through any chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerouting.core.errors import UserError
from rerouting.core.records import Chat
from rerouting.data.template import prompt_text
from rerouting.models.soft_prompt import SoftProblem
from rerouting.targets.target_loss import target_ids

_MARK = "SLOTPLACEHOLDER"


def around_slot(chat: Chat, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Tokens before and after a suffix to the last user turn; a space stands between request and suffix.

    Raises:
        UserError: the template changes the user's text.
    """
    text = prompt_text(chat.with_request(f"{chat.request} {_MARK}"), tokenizer)
    before, found, after = text.rpartition(_MARK)
    if not found:
        raise UserError(f"the chat template does not keep the text of {chat.id}", "mend the chat template")
    parts = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before.rstrip(" "), after))
    first, second = parts
    return list(first), list(second)


def soft_problem(chat: Chat, tokenizer: Any, start: Sequence[int]) -> SoftProblem:
    """Soft tokens, which start from some token ids, as a suffix to the request; the behaviour's target is wanted.

    Raises:
        UserError: no target, or the template changes the user's text.
    """
    wanted = tuple(target_ids(chat, tokenizer))
    before, after = around_slot(chat, tokenizer)
    return SoftProblem(tuple(before), tuple(start), tuple(after), wanted)
