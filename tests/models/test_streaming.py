"""Token by token: the tokens of `generate`, the states of a plain forward pass, whole characters only."""

import pytest
import torch

from rerouting.core.errors import UserError
from rerouting.models.generation import generate
from rerouting.models.streaming import Reader, TextStream, context_length, stream
from tests.data.tokenizers_of_families import CHATML, LLAMA2, tiny, tiny_sentencepiece
from tests.models.tiny import FAMILIES

PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15], [20, 21]]
LAYERS = (1, 2)


class Tokenizer:
    pad_token_id = 0


def model_of(family):
    model = FAMILIES[family]()
    model.generation_config.eos_token_id = 2
    return model


def written(model, prompt, given=(), **options):
    return [step.token for step in stream(Reader(model), prompt, given, **options) if not step.ended]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "qwen3_moe", "gpt_neox"])
@pytest.mark.parametrize("sampled", [False, True])
def test_a_stream_is_what_generate_writes(family, sampled):
    model = model_of(family)
    whole = {"do_sample": True, "temperature": 0.8, "seed": 3} if sampled else {}
    single = {"temperature": 0.8, "seed": 3} if sampled else {}
    for prompt in PROMPTS:
        expected = generate(model, Tokenizer(), [prompt], max_new_tokens=7, **whole)[0]
        assert expected
        assert written(model, prompt, max_new_tokens=7, **single) == expected


def test_given_tokens_come_first_and_do_not_count():
    model = model_of("llama")
    expected = generate(model, Tokenizer(), [[5, 6, 7, 8]], max_new_tokens=4)[0]
    steps = list(stream(Reader(model), [5, 6], [7, 8], max_new_tokens=4))
    assert [step.token for step in steps if step.given] == [7, 8]
    assert [step.token for step in steps if not step.given and not step.ended] == expected


def test_the_end_token_is_shown_and_is_the_last():
    model = model_of("llama")
    plain = written(model, PROMPTS[0], max_new_tokens=6)
    model.generation_config.eos_token_id = [2, plain[3]]
    steps = list(stream(Reader(model), PROMPTS[0], max_new_tokens=6))
    assert [step.token for step in steps] == plain[: plain.index(plain[3]) + 1]
    assert [step.ended for step in steps] == [False] * (len(steps) - 1) + [True]


def test_states_and_logits_are_those_before_each_token():
    model = model_of("llama")
    steps = list(stream(Reader(model, LAYERS), [5, 6, 7], [8, 9], max_new_tokens=4))
    ids = [5, 6, 7, *(step.token for step in steps)]
    depth = model.config.num_hidden_layers
    seen = {}
    hooks = [
        block.register_forward_hook(lambda m, a, out, at=at: seen.update({at + 1: out}))
        for at, block in enumerate(model.model.layers)
    ]
    with torch.no_grad():
        output = model(torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    assert depth >= max(LAYERS)
    for at, step in enumerate(steps):
        assert step.states.shape == (len(LAYERS), model.config.hidden_size)
        torch.testing.assert_close(step.logits, output.logits[0, 2 + at], rtol=1e-4, atol=1e-4)
        for row, layer in enumerate(LAYERS):
            states = seen[layer][0] if isinstance(seen[layer], tuple) else seen[layer]
            torch.testing.assert_close(
                step.states[row], states.view(len(ids), -1)[2 + at], rtol=1e-4, atol=1e-4
            )
    assert not any(block._forward_hooks for block in model.model.layers)


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="layers 1 to"):
        Reader(model_of("llama"), (99,))


def test_context_length_is_the_config_s():
    model = model_of("llama")
    assert context_length(model) == model.config.max_position_embeddings
    assert context_length(model_of("gpt2")) == model_of("gpt2").config.n_positions


TEXTS = ["plain words", "naïve – “quoted”", "日本語 and 🙂🙃!", "\n\n  indented\n"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("make", [lambda: tiny(CHATML), lambda: tiny_sentencepiece(LLAMA2)])
def test_pieces_are_the_text(text, make):
    tokenizer = make()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    stream_of_text = TextStream(tokenizer)
    pieces = [stream_of_text.push(token) for token in ids]
    assert "".join(pieces) + stream_of_text.rest() == tokenizer.decode(ids, skip_special_tokens=True)


def test_no_half_character_is_shown():
    tokenizer = tiny(CHATML)
    ids = tokenizer("a🙂b", add_special_tokens=False)["input_ids"]
    assert len(ids) == 6
    text = TextStream(tokenizer)
    assert [text.push(token) for token in ids] == ["a", "", "", "", "🙂", "b"]
    assert text.rest() == ""


def test_gibberish_of_bytes_is_told_as_it_decodes():
    tokenizer = tiny(CHATML)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        ids = torch.randint(0, 256, (40,), generator=generator).tolist()
        text = TextStream(tokenizer)
        pieces = [text.push(token) for token in ids]
        assert "".join(pieces) + text.rest() == tokenizer.decode(ids, skip_special_tokens=True)


def test_an_unfinished_character_is_told_at_the_end():
    tokenizer = tiny(CHATML)
    ids = tokenizer("ok🙂", add_special_tokens=False)["input_ids"][:-1]
    text = TextStream(tokenizer)
    assert "".join(text.push(token) for token in ids) == "ok"
    assert text.rest() == "\ufffd"
