"""A translation model on this machine: NLLB, M2M100, or a model of one pair (Marian, opus-mt), through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rerouting.core.contracts import Reply
from rerouting.core.errors import UserError
from rerouting.models.memory import in_batches
from rerouting.models.pretrained import pretrained
from rerouting.targets.translators._languages import LANGUAGES


@dataclass(frozen=True)
class Local:
    """Greedy translation by a sequence-to-sequence model."""

    model: str = "facebook/nllb-200-distilled-600M"
    """Folder or hub name."""
    device: str = "auto"
    """Device; auto: cuda when there is one."""
    batch: int = 16
    """Texts translated at once; halved when memory runs out."""
    max_new_tokens: int = 512
    """Length at which a translation is cut, in tokens."""
    max_tokens: int = 512
    """Length at which a text is cut before it is translated, in tokens; the reply is then a failure."""
    allow_pickle: bool = False
    """Also read pickled weights (NLLB's own are), which can run code when opened."""

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[Reply]:
        """Translate each text; every one is a failure if the model says that it is of another pair.

        Raises:
            UserError: no such model, or a language that it does not have.
        """
        model, tokenizer = pretrained("AutoModelForSeq2SeqLM", self.model, self.device, self.allow_pickle)
        if pair := _other_pair(tokenizer, source, target):
            why = f"{self.model} translates from {pair[0]} to {pair[1]}, not from {source} to {target}"
            return [Reply(None, why) for _ in texts]
        start = _code(tokenizer, source, self.model)
        goal = _code(tokenizer, target, self.model)
        if start:
            tokenizer.src_lang = start.strip("_")
        forced = tokenizer.convert_tokens_to_ids(goal) if goal else None

        def batch(rows: Sequence[str]) -> list[Reply]:
            return self._batch(model, tokenizer, rows, forced)

        order = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
        replies = in_batches(batch, [texts[at] for at in order], self.batch) if texts else []
        placed = dict(zip(order, replies, strict=True))
        return [placed[at] for at in range(len(texts))]

    def _batch(self, model: Any, tokenizer: Any, rows: Sequence[str], forced: int | None) -> list[Reply]:
        encoded = tokenizer(list(rows), padding=True, return_tensors="pt", return_token_type_ids=False)
        long = encoded["attention_mask"].sum(dim=1) > self.max_tokens
        inputs = {name: encoded[name][:, : self.max_tokens] for name in ("input_ids", "attention_mask")}
        options = {} if forced is None else {"forced_bos_token_id": forced}
        with torch.inference_mode():
            out = model.generate(
                **{name: tensor.to(model.device) for name, tensor in inputs.items()},
                max_new_tokens=self.max_new_tokens,
                max_length=None,
                num_beams=1,
                do_sample=False,
                **options,
            )
        written = [[token for token in row if token != forced] for row in out.tolist()]
        found = [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
        too_long = Reply(None, f"text of over {self.max_tokens} tokens")
        empty = Reply(None, "the translation model wrote nothing")
        return [
            too_long if bool(cut) else (Reply(one) if one else empty)
            for one, cut in zip(found, long, strict=True)
        ]


def _code(tokenizer: Any, language: str, model: str) -> str:
    """The token that names a language; "" for a model of one pair, which has none.

    Raises:
        UserError: the model has languages, but not this one.
    """
    families = [family for family in ("nllb", "m2m") if _has(tokenizer, getattr(LANGUAGES["en"], family))]
    if not families:
        return ""
    known = LANGUAGES.get(language)
    code = str(getattr(known, families[0])) if known else f"__{language}__" * (families[0] == "m2m")
    code = code or language
    if not _has(tokenizer, code):
        raise UserError(
            f"{model} has no language {language!r}", "leave it out of languages, or use another translator"
        )
    return code


def _other_pair(tokenizer: Any, source: str, target: str) -> tuple[str, str] | None:
    """The pair that a Marian tokenizer names, if one of its languages is known to be another than asked for."""
    pair = tuple(str(tokenizer.init_kwargs.get(name) or "") for name in ("source_lang", "target_lang"))
    named = [[code for code in LANGUAGES if name in _names(code)] for name in pair]
    wrong = any(codes and code not in codes for codes, code in zip(named, (source, target), strict=True))
    return (pair[0], pair[1]) if wrong else None


def _names(code: str) -> set[str]:
    """A language's codes of two and of three letters ("zh", "zho")."""
    return {code.partition("-")[0], LANGUAGES[code].nllb[:3]}


def _has(tokenizer: Any, token: str) -> bool:
    """Whether a token is known; M2M100's vocabulary does not list its languages, so that is not asked."""
    return tokenizer.convert_tokens_to_ids(token) not in (None, tokenizer.unk_token_id)
