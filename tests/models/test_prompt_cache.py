"""What prompts begin with is read once, and the answers are those of prompts that are read whole."""

import math
from functools import wraps

import pytest
import torch
import transformers

from rerouting.models import generation
from rerouting.models.config import LoraConfig
from rerouting.models.generation import generate
from rerouting.models.layers import unwrapped
from rerouting.models.lora import add_lora
from rerouting.models.packing import register
from rerouting.models.prompt_cache import common_beginning, goes_on, reads_ahead
from tests.models.tiny import FAMILIES

BEGINNING = [5, 6, 7, 8, 9, 10, 11, 12, 13]
ALIKE = [
    [*BEGINNING, 20, 21, 22, 23],
    [*BEGINNING, 30],
    [*BEGINNING, 20, 40],
    [*BEGINNING[:8], 41, 42, 43, 44, 45, 46],
]
MIXED = [ALIKE[0], [50, 51, 52], *ALIKE[1:]]


class Tokenizer:
    pad_token_id = 0


def test_the_beginning_that_saves_most():
    found = common_beginning(ALIKE)
    assert found.tokens == tuple(BEGINNING[:8]) and found.rows == {0, 1, 2, 3}, (
        "24 tokens; the longer one saves 18"
    )
    found = common_beginning([ALIKE[0]] * 5)
    assert found.tokens == (*BEGINNING, 20, 21, 22), "a token of each prompt is left to be read"


def test_others_must_be_worth_a_batch_of_their_own():
    assert common_beginning(MIXED, apart=24).rows == {0, 2, 3, 4}
    assert common_beginning(MIXED, apart=25) is None
    assert common_beginning(ALIKE, apart=math.inf).rows == {0, 1, 2, 3}


def test_short_beginnings_and_single_prompts_are_read_whole():
    assert common_beginning([[*BEGINNING[:7], 1, 2], [*BEGINNING[:7], 3, 4]]) is None
    assert common_beginning([BEGINNING + list(range(100, 400)), BEGINNING + list(range(500, 800))]) is None
    assert common_beginning([BEGINNING]) is common_beginning([]) is None


def watched(model, monkeypatch):
    """Shape of the ids in every forward pass of the model."""
    inner, shapes = unwrapped(model), []
    forward = inner.forward

    @wraps(forward)  # `generate` reads the signature
    def watch(*args, **given):
        shapes.append(tuple(given["input_ids"].shape))
        return forward(*args, **given)

    monkeypatch.setattr(inner, "forward", watch)
    return shapes


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "ours"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3_moe", "gpt_neox", "phi3"])
def test_answers_are_the_same(family, attention, adapted, monkeypatch):
    model = FAMILIES[family]()
    model.set_attn_implementation(register(torch.device("cpu")) if attention == "ours" else attention)
    if adapted:
        model = add_lora(model, LoraConfig(rank=2, init_b_std=0.3), 1).eval()
    monkeypatch.setattr(generation, "A_STEP", 0)
    for options in ({}, {"do_sample": True, "temperature": 0.9, "seed": 3}):
        with monkeypatch.context() as without:
            without.setattr(generation, "common_beginning", lambda *_: None)
            expected = generate(model, Tokenizer(), MIXED, max_new_tokens=20, **options)
        with monkeypatch.context() as watching:
            shapes = watched(model, watching)
            assert generate(model, Tokenizer(), MIXED, max_new_tokens=20, **options) == expected
        assert shapes[:3] == [(1, 8), (4, 6), (4, 1)], (
            "the beginning, the rest of four prompts, the first new token"
        )


def test_windows_and_biases_by_distance_read_whole():
    """A window is counted in places, padding included."""
    assert not reads_ahead(FAMILIES["gemma3"]()) and goes_on(FAMILIES["gemma3"]())
    bloom = transformers.BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4)
    assert not reads_ahead(transformers.BloomForCausalLM(bloom))
    assert reads_ahead(FAMILIES["llama"]())


def test_hooks_see_whole_prompts():
    """An attack on hidden states knows a prompt by its tokens."""
    model = FAMILIES["llama"]()
    with model.register_forward_pre_hook(lambda *_: None):
        assert reads_ahead(model), "counts what goes in"
    seen = []
    handle = model.model.layers[0].register_forward_hook(
        lambda module, args, output: seen.append(args[0].shape[:2])
    )
    assert not reads_ahead(model)
    generate(model, Tokenizer(), ALIKE, max_new_tokens=2)
    handle.remove()
    assert seen[0] == (4, 14) and reads_ahead(model)
