"""A prompt with a slot at the end of the user's turn, through any chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerouting.core.errors import UserError
from rerouting.core.prompts import Prompt, reader_of
from rerouting.core.records import Chat
from rerouting.data.formatting import encode
from rerouting.data.template import prompt_text
from rerouting.models.soft_prompt import SoftProblem
from rerouting.targets.target_loss import target_ids

_MARK = "SLOTPLACEHOLDER"


def with_suffix(chat: Chat, text: str) -> Chat:
    """The chat with text behind its request; the text brings the space between them itself."""
    return chat.with_request(f"{chat.request.rstrip(' ')}{text}")


def around_slot(chat: Chat, tokenizer: Any) -> tuple[Prompt, list[int]]:
    """Tokens before (with the chat's pictures) and after a suffix to the last user turn.

    Raises:
        UserError: the template changes the user's text.
    """
    text = prompt_text(with_suffix(chat, _MARK), tokenizer)
    before, found, after = text.rpartition(_MARK)
    if not found:
        raise UserError(f"the chat template does not keep the text of {chat.id}", "mend the chat template")
    # read where it stands: by itself, sentencepiece puts a blank in front of it
    mark, both = encode(tokenizer, _MARK), encode(tokenizer, _MARK + after)
    behind = both[len(mark) :] if both[: len(mark)] == mark else encode(tokenizer, after)
    ids = reader_of(tokenizer).expand(before, chat.images) if chat.images else encode(tokenizer, before)
    return Prompt(ids, chat.images), behind


def texts_behind(tokenizer: Any, before: Sequence[int], rows: Sequence[Sequence[int]]) -> list[str]:
    """What each row of tokens adds to the text before it; by itself, sentencepiece drops a row's first blank."""
    last = list(before[-1:])
    exact = {"clean_up_tokenization_spaces": False}
    texts = tokenizer.batch_decode([[*last, *row] for row in rows], **exact)
    return [str(text).removeprefix(tokenizer.decode(last, **exact)) for text in texts]


def soft_problem(chat: Chat, tokenizer: Any, start: Sequence[int]) -> SoftProblem:
    """Soft tokens, which start from some token ids, as a suffix to the request; the behaviour's target is wanted.

    Raises:
        UserError: no target, or the template changes the user's text.
    """
    wanted = tuple(target_ids(chat, tokenizer))
    before, after = around_slot(chat, tokenizer)
    return SoftProblem(tuple(before), tuple(start), tuple(after), wanted, before.images)
