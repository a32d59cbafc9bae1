"""Translators: tables in files, chat models that are asked to translate, and tiny real translation models."""

import json
from dataclasses import dataclass, field

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from rerouting.core.contracts import Reply
from rerouting.core.errors import UserError
from rerouting.core.finder import available
from rerouting.targets.translators._languages import LANGUAGES, name_of
from rerouting.targets.translators.assistant import Assistant, translated
from rerouting.targets.translators.files import Files
from rerouting.targets.translators.local import Local, _code

ROWS = [
    {"text": "Bake a cake", "language": "it", "translation": "Cuoci una torta"},
    {"text": "Bake a cake", "language": "uk", "translation": "Спечи торт"},
    {"text": " Sing ", "language": "it", "translation": "Canta"},
]


def test_these_are_the_translators():
    assert available("targets.translators") == ("assistant", "files", "local")


def table(file, rows):
    if file.suffix == ".csv":
        lines = ["text,language,translation", *(",".join(row.values()) for row in rows)]
        file.write_text("\n".join(lines))
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    else:
        file.write_text("\n".join(map(json.dumps, rows)))
    return Files(str(file))


class TestFiles:
    @pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
    def test_looks_texts_up_in_order(self, tmp_path, suffix):
        files = table(tmp_path / f"t.{suffix}", ROWS)
        assert files.translate(["Sing\n", "Bake a cake", "Bake a cake"], "en", "it") == [
            *(Reply("Canta"), Reply("Cuoci una torta"), Reply("Cuoci una torta"))
        ]
        assert files.translate(["Bake a cake"], "en", "uk") == [Reply("Спечи торт")]
        assert files.translate([], "en", "it") == []

    def test_a_text_that_is_not_there_fails_alone(self, tmp_path):
        files = table(tmp_path / "t.jsonl", ROWS)
        lost, found = files.translate(["Dance", "Sing"], "en", "it")
        assert lost == Reply(None, f"not in {tmp_path / 't.jsonl'} (it)") and found == Reply("Canta")
        assert files.translate(["Sing"], "en", "th")[0].failure.endswith("(th)")

    def test_goes_from_english_only(self, tmp_path):
        replies = table(tmp_path / "t.jsonl", ROWS).translate(["Canta", "Ciao"], "it", "en")
        assert [reply.text for reply in replies] == [None, None]
        assert all("from English only, not from it" in reply.failure for reply in replies)

    @pytest.mark.parametrize(("suffix", "line"), [("jsonl", 2), ("csv", 3)])
    def test_an_empty_field_names_its_line(self, tmp_path, suffix, line):
        files = table(tmp_path / f"t.{suffix}", [ROWS[0], ROWS[1] | {"translation": ""}])
        with pytest.raises(UserError, match=f"line {line}: 'translation' is empty"):
            files.translate(["Sing"], "en", "it")

    @pytest.mark.parametrize("gone", ["text", "language", "translation"])
    def test_a_missing_column_names_its_line(self, tmp_path, gone):
        short = {name: value for name, value in ROWS[1].items() if name != gone}
        with pytest.raises(UserError, match=f"line 2: no column '{gone}'"):
            table(tmp_path / "t.jsonl", [ROWS[0], short]).translate(["Sing"], "en", "it")

    def test_two_translations_of_one_text_contradict_each_other(self, tmp_path):
        second = ROWS[0] | {"translation": "Prepara una torta"}
        with pytest.raises(UserError, match="line 3: a second translation"):
            table(tmp_path / "t.jsonl", [*ROWS[:2], second]).translate(["Sing"], "en", "it")
        again = table(tmp_path / "again.jsonl", [ROWS[0], ROWS[0]])
        assert again.translate(["Bake a cake"], "en", "it") == [Reply("Cuoci una torta")]

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(UserError, match="no such data file"):
            Files(str(tmp_path / "none.jsonl")).translate(["Sing"], "en", "it")


@dataclass
class Chatty:
    """A chat model that writes the given replies, one a conversation."""

    replies: list[Reply]
    asked: list[str] = field(default_factory=list)
    options: dict[str, object] = field(default_factory=dict)

    def reply(self, conversations, **options):
        self.asked += [turns[-1].content for turns in conversations]
        self.options = options
        return self.replies


class TestAssistant:
    def one(self, said, text="Bake a cake", source="en", target="it"):
        reply = said if isinstance(said, Reply) else Reply(said)
        (found,) = translated(Chatty([reply]), [text], source, target)
        return found

    def test_asks_by_the_languages_names_and_keeps_order(self):
        model = Chatty([Reply("Cuoci"), Reply(None, "time-out"), Reply("Canta")])
        replies = translated(model, ["Bake", "Lose", "Sing"], "en", "zh-CN", 50)
        assert replies == [Reply("Cuoci"), Reply(None, "translator: time-out"), Reply("Canta")]
        assert "from English to Simplified Chinese" in model.asked[0]
        assert model.asked[2].endswith("<text>Sing</text>") and model.options["max_new_tokens"] == 50

    @pytest.mark.parametrize(
        "said", ["Cuoci una torta", "<text>Cuoci una torta</text>\n", "  <TEXT>Cuoci una torta</TEXT>"]
    )
    def test_tags_are_no_part_of_a_translation(self, said):
        assert self.one(said) == Reply("Cuoci una torta")

    @pytest.mark.parametrize(
        "said",
        [
            "I'm so sorry, but no.",
            "I’m sorry, but no.",
            "Sorry, I can't translate this.",
            "I cannot translate this.",
            "I won't translate this.",
            "I apologize, but this is harmful.",
            "Unfortunately, I can't do that.",
            "I must decline.",
            "I'm not able to help.",
            "As an AI, I do not.",
            "<text>I'm unable to help.</text>",
        ],
    )
    def test_a_model_that_declines_has_not_translated(self, said):
        found = self.one(said)
        assert found.text is None and found.failure.startswith("translator may have declined: ")

    def test_a_text_that_is_itself_a_refusal_may_be_translated(self):
        said = "I'm sorry, but no."
        assert self.one("I am sorry. No.", said, "en", "en") == Reply("I am sorry. No.")
        assert self.one(said, "Mi dispiace, ma no.", "it", "en").text is None, "whose refusal is it?"

    @pytest.mark.parametrize("said", ["Bake a cake", " bake a cake\n", "<text>Bake a cake</text>"])
    def test_an_echo_is_no_translation(self, said):
        assert self.one(said) == Reply(None, "translator gave the text back untranslated")

    @pytest.mark.parametrize("said", ["<text></text>", " \n"])
    def test_nothing_is_no_translation(self, said):
        assert self.one(said) == Reply(None, "translator wrote nothing")

    def test_asks_the_chat_model_that_it_is_given(self, tmp_path):
        file = tmp_path / "mine.py"
        file.write_text(
            "from dataclasses import dataclass\n"
            "from rerouting.core.contracts import Reply\n"
            "@dataclass\n"
            "class Mine:\n"
            "    word: str\n"
            "    def reply(self, conversations, **options):\n"
            "        return [Reply(self.word) for _ in conversations]\n"
        )
        assistant = Assistant(f"{file}:Mine", {"word": "Canta"})
        assert assistant.translate(["Sing", "Chant"], "en", "it") == [Reply("Canta"), Reply("Canta")]
        with pytest.raises(UserError):
            Assistant("oracle").translate(["Sing"], "en", "it")


LETTERS = ["▁", *"abcdefghijklmnopqrstuvwxyz"]
SIZES = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 64,
    "init_std": 0.3,
    "tie_word_embeddings": False,
}


def save(folder, tokenizer, kind, config):
    torch.manual_seed(0)
    getattr(transformers, kind)(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def save_nllb(folder, special):
    """M2M100's architecture with NLLB's tokenizer, in three languages, whose codes are special tokens or plain ones."""
    codes = ["eng_Latn", "ita_Latn", "zho_Hans"]
    vocab = {token: at for at, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *LETTERS, *codes])}
    tokenizer = transformers.NllbTokenizer(
        vocab=vocab, merges=[], extra_special_tokens=codes if special else []
    )
    config = transformers.M2M100Config(vocab_size=len(tokenizer), **SIZES)
    return save(folder, tokenizer, "M2M100ForConditionalGeneration", config)


@pytest.fixture(scope="module")
def nllb(tmp_path_factory):
    return save_nllb(tmp_path_factory.mktemp("nllb"), special=True)


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    """Marian from English to Chinese; its own tokenizer needs sentencepiece, so one of letters stands in."""
    vocab = {token: at for at, token in enumerate([*LETTERS, "</s>", "<unk>", "<pad>"])}
    letters = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    letters.post_processor = processors.TemplateProcessing(
        "$A </s>", special_tokens=[("</s>", vocab["</s>"])]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=letters,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        source_lang="eng",
        target_lang="zho",
    )
    pad = vocab["<pad>"]
    config = transformers.MarianConfig(
        vocab_size=len(vocab),
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=vocab["</s>"],
        forced_eos_token_id=None,
        **SIZES,
    )
    return save(tmp_path_factory.mktemp("marian"), tokenizer, "MarianMTModel", config)


def local(folder, **options):
    return Local(folder, "cpu", **({"max_new_tokens": 8} | options))


class TestLocal:
    TEXTS = ("bake", "sing a very long song", "to", "dance")

    def test_each_text_as_if_alone_whatever_the_batch(self, nllb):
        together = local(nllb, batch=3).translate(self.TEXTS, "en", "it")
        alone = [local(nllb).translate([text], "en", "it")[0] for text in self.TEXTS]
        assert together == alone and len({reply.text for reply in alone}) > 1
        assert local(nllb).translate([], "en", "it") == []

    def test_both_languages_matter(self, nllb):
        asked = [("en", "it"), ("en", "zh-CN"), ("it", "en"), ("zh-CN", "en")]
        found = [tuple(local(nllb).translate(self.TEXTS, *pair)) for pair in asked]
        assert len(set(found)) == 4

    def test_the_token_that_names_the_language_is_no_part_of_a_translation(self, tmp_path):
        """M2M100's tokenizer does not call its languages special, and keeps them in the text."""
        folder = save_nllb(tmp_path / "plain", special=False)
        assert all("ita_Latn" not in reply.text for reply in local(folder).translate(self.TEXTS, "en", "it"))

    def test_a_language_that_the_model_lacks(self, nllb):
        for pair in (("en", "uk"), ("uk", "en"), ("en", "xx_Yyyy")):
            with pytest.raises(UserError, match="has no language"):
                local(nllb).translate(["bake"], *pair)

    def test_a_text_that_is_too_long_fails_alone(self, nllb):
        texts = ["bake", "sing a very long song", "to"]
        first, long, last = local(nllb, max_tokens=10).translate(texts, "en", "it")
        assert long == Reply(None, "text of over 10 tokens")
        assert [first, last] == local(nllb).translate(["bake", "to"], "en", "it")

    def test_a_translation_is_cut_at_its_length(self, nllb):
        (short,), (long,) = (local(nllb, max_new_tokens=n).translate(["bake"], "en", "it") for n in (3, 8))
        assert long.text.startswith(short.text) and len(long.text) > len(short.text)

    def test_nothing_written_is_a_failure(self, nllb):
        (reply,) = local(nllb, max_new_tokens=1).translate(["bake"], "en", "it")
        assert reply == Reply(None, "the translation model wrote nothing")

    def test_a_model_of_one_pair_names_no_language(self, marian):
        replies = local(marian).translate(self.TEXTS, "en", "zh-CN")
        assert all(reply.text for reply in replies)
        assert replies[:1] == local(marian).translate(["bake"], "en", "zh-CN")

    @pytest.mark.parametrize("pair", [("en", "it"), ("zh-CN", "en"), ("it", "zh-CN")])
    def test_a_model_of_another_pair_does_not_translate(self, marian, pair):
        replies = local(marian).translate(["bake", "to"], *pair)
        why = f"{marian} translates from eng to zho, not from {pair[0]} to {pair[1]}"
        assert replies == [Reply(None, why)] * 2

    def test_a_model_that_is_not_there(self, tmp_path):
        with pytest.raises(UserError, match="cannot be loaded"):
            local(str(tmp_path)).translate(["bake"], "en", "it")


class M2m:
    """Knows tokens as M2M100's tokenizer does, which needs sentencepiece: its vocabulary lacks the languages."""

    unk_token_id = 3

    def __init__(self, *tokens):
        self.tokens = tokens

    def get_vocab(self):
        return {}

    def convert_tokens_to_ids(self, token):
        return 100 + self.tokens.index(token) if token in self.tokens else self.unk_token_id


def test_the_token_of_a_language_in_each_family():
    m2m = M2m("__en__", "__zh__", "__xh__")
    assert [_code(m2m, code, "m") for code in ("en", "zh-CN", "xh")] == ["__en__", "__zh__", "__xh__"]
    nllb = M2m("eng_Latn", "grn_Latn", "xho_Latn")
    assert [_code(nllb, code, "m") for code in ("gn", "xho_Latn")] == ["grn_Latn", "xho_Latn"]
    assert _code(M2m("a"), "gn", "m") == ""
    with pytest.raises(UserError, match="m has no language 'gn'"):
        _code(m2m, "gn", "m")


def test_names_of_languages():
    assert name_of("gn") == "Guarani" and name_of("xx") == "xx"
    assert all(one.name and one.nllb for one in LANGUAGES.values())
