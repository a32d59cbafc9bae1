from functools import wraps

import pytest
import torch
import transformers

from rerouting.core.errors import UserError
from rerouting.models import generation
from rerouting.models.config import LoraConfig
from rerouting.models.generation import generate
from rerouting.models.layers import unwrapped
from rerouting.models.lora import add_lora
from rerouting.models.sampling import pick
from tests.models.tiny import FAMILIES

PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15], [20, 21], [5, 6, 7]]


class Tokenizer:
    pad_token_id = 0


@pytest.fixture(scope="module")
def model():
    model = FAMILIES["llama"]()
    model.generation_config.eos_token_id = 2
    return model


def by_hand(model, prompt, steps):
    """Greedy decoding without cache, batch or padding."""
    ids, new = list(prompt), []
    for _ in range(steps):
        with torch.no_grad():
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token == 2:
            break
        ids.append(token)
        new.append(token)
    return new


@pytest.mark.parametrize("budget", [1, 30, 16384])
def test_greedy_equals_one_by_one_in_the_given_order(model, budget):
    done = []
    got = generate(model, Tokenizer(), PROMPTS, max_new_tokens=6, token_budget=budget, progress=done.append)
    assert got == [by_hand(model, prompt, 6) for prompt in PROMPTS]
    assert sum(done) == 5


@pytest.mark.parametrize("stretch", [16, 2])
@pytest.mark.parametrize("family", ["gpt2", "gemma3", "qwen3_moe", "gpt_neox"])
def test_left_padding_is_right_for_other_families(family, stretch, monkeypatch):
    monkeypatch.setattr(generation, "STRETCH", stretch)
    model = FAMILIES[family]()
    model.generation_config.eos_token_id = 2
    assert generate(model, Tokenizer(), PROMPTS, max_new_tokens=5) == [by_hand(model, p, 5) for p in PROMPTS]


def leaving(model, monkeypatch, **options):
    """Answers in one stretch and in stretches of 3, with some ends; rows in the first and the last forward pass."""
    inner = unwrapped(model)
    inner.generation_config.eos_token_id = None
    plain = generate(model, Tokenizer(), PROMPTS, max_new_tokens=12, **options)
    ends = sorted({plain[0][2], plain[2][5], plain[3][8]})
    inner.generation_config.eos_token_id = ends
    whole = generate(model, Tokenizer(), PROMPTS, max_new_tokens=12, **options)
    assert whole == [generation._cut(one, set(ends)) for one in plain]
    assert min(map(len, whole)) < 3 < max(map(len, whole))
    sizes, forward = [], inner.forward

    @wraps(forward)  # `generate` reads the signature
    def watched(*args, **given):
        sizes.append(len(given["input_ids"]))
        return forward(*args, **given)

    monkeypatch.setattr(inner, "forward", watched)
    monkeypatch.setattr(generation, "STRETCH", 3)
    assert generate(model, Tokenizer(), PROMPTS, max_new_tokens=12, **options) == whole
    return sizes[0], sizes[-1]


SAMPLED = {"do_sample": True, "temperature": 0.9, "top_p": 0.95}


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("adapted", [False, True])
def test_answers_that_have_ended_leave_their_batch(family, adapted, monkeypatch):
    model = FAMILIES[family]()
    if adapted:
        model = add_lora(model, LoraConfig(rank=2, init_b_std=0.3), 1).eval()
    first, last = leaving(model, monkeypatch, **SAMPLED)
    assert first == 5 and last < 5


def hybrid():
    torch.manual_seed(0)
    config = transformers.FalconH1Config(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, mamba_chunk_size=8,
        initializer_range=0.3,
    )  # fmt: skip
    return transformers.FalconH1ForCausalLM(config).eval()


@pytest.mark.parametrize("kind", ["hybrid", "no cache", "static", "least"])
def test_who_cannot_go_on_with_some_rows_answers_in_one_stretch(kind, monkeypatch):
    model = hybrid() if kind == "hybrid" else FAMILIES["llama"]()
    given = model.generation_config
    if kind == "no cache":
        given.use_cache = False
    if kind == "static":
        given.cache_implementation = "static"
    if kind == "least":
        given.min_new_tokens = 0  # above 0 it would be counted anew in every stretch
    first, last = leaving(model, monkeypatch, **SAMPLED)
    assert first == last == 5


def test_cut_at_the_first_end(model):
    plain = generate(model, Tokenizer(), PROMPTS[:1], max_new_tokens=6)[0]
    model.generation_config.eos_token_id = [2, plain[3]]
    try:
        cut = generate(model, Tokenizer(), PROMPTS, max_new_tokens=6)
    finally:
        model.generation_config.eos_token_id = 2
    assert cut[0] == plain[: plain.index(plain[3])]


def test_sampling_depends_on_seed_and_prompt_only(model):
    options = {"max_new_tokens": 8, "do_sample": True, "temperature": 0.9, "top_p": 0.95}
    first = generate(model, Tokenizer(), PROMPTS, seed=1, **options)
    assert generate(model, Tokenizer(), PROMPTS, seed=1, **options) == first
    assert generate(model, Tokenizer(), PROMPTS, seed=1, token_budget=1, **options) == first
    assert generate(model, Tokenizer(), PROMPTS[2:4], seed=1, **options) == first[2:4]
    reverse = generate(model, Tokenizer(), PROMPTS[:4][::-1], seed=1, **options)
    assert reverse[::-1] == first[:4]
    assert first[0] != first[4], "equal prompts get different samples"
    assert generate(model, Tokenizer(), PROMPTS, seed=2, **options) != first


def test_pick_by_hand():
    probabilities = torch.tensor([[0.2, 0.5, 0.0, 0.3]])
    uniforms = (0.0, 0.19, 0.21, 0.69, 0.71, 0.999)
    got = [pick(probabilities, torch.tensor([[u]]), 1.0).item() for u in uniforms]
    assert got == [0, 0, 1, 1, 3, 3]
    # nucleus of 0.6: tokens 1 (0.5) and 3 (0.3), renormalised to 0.625 and 0.375
    got = [pick(probabilities, torch.tensor([[u]]), 0.6).item() for u in (0.0, 0.62, 0.63, 0.999)]
    assert got == [1, 1, 3, 3]
    assert pick(probabilities, torch.tensor([[0.999]]), 0.4).item() == 1


def test_pick_follows_the_distribution_and_widens_a_flat_nucleus():
    torch.manual_seed(0)
    flat = torch.full((4000, 1000), 1e-3)
    picked = pick(flat, torch.rand(4000, 1), 0.9)
    assert 850 < picked.unique().numel() <= 910
    peaked = torch.tensor([[0.7, 0.2, 0.1]]).expand(4000, 3)
    share = torch.bincount(pick(peaked, torch.rand(4000, 1), 1.0).flatten(), minlength=3) / 4000
    torch.testing.assert_close(share, torch.tensor([0.7, 0.2, 0.1]), atol=0.03, rtol=0)


def test_memory_running_out_halves_the_batch(model, monkeypatch):
    real, sizes = generation._batch, []

    def small(model, tokenizer, inputs, lengths, *others):
        sizes.append(len(lengths))
        if len(lengths) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, tokenizer, inputs, lengths, *others)

    monkeypatch.setattr(generation, "_batch", small)
    got = generate(model, Tokenizer(), PROMPTS, max_new_tokens=6)
    assert got == [by_hand(model, prompt, 6) for prompt in PROMPTS]
    assert sizes[0] == 5 and max(sizes[-2:]) <= 2


def test_memory_for_not_even_one(model, monkeypatch):
    def never(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(generation, "_batch", never)
    with pytest.raises(UserError, match="memory is too small"):
        generate(model, Tokenizer(), PROMPTS, max_new_tokens=6)


def test_other_errors_pass_through(model, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(generation, "_batch", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        generate(model, Tokenizer(), PROMPTS, max_new_tokens=6)


def test_dropout_is_off_and_the_mode_comes_back():
    model = add_lora(FAMILIES["llama"](), LoraConfig(rank=2, dropout=0.5, init_b_std=0.5), 1).train()
    model.base_model.model.generation_config.eos_token_id = 2
    first = generate(model, Tokenizer(), PROMPTS, max_new_tokens=6)
    assert model.training
    assert generate(model, Tokenizer(), PROMPTS, max_new_tokens=6) == first


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_p": 0.0}, {"max_new_tokens": 0}])
def test_impossible_options(model, options):
    with pytest.raises(UserError, match="cannot generate with"):
        generate(model, Tokenizer(), PROMPTS, **{"max_new_tokens": 4, **options})


def test_empty_prompt_and_no_prompt(model):
    with pytest.raises(UserError, match="prompt 1 has no tokens"):
        generate(model, Tokenizer(), [[3], []], max_new_tokens=4)
    assert generate(model, Tokenizer(), [], max_new_tokens=4) == []


def test_embeddings_of_the_tokens_give_the_tokens_answers(model):
    table = model.get_input_embeddings()
    soft = [table(torch.tensor(prompt)) for prompt in PROMPTS]
    got = generation.generate_from_embeddings(model, Tokenizer(), soft, max_new_tokens=6)
    assert got == generate(model, Tokenizer(), PROMPTS, max_new_tokens=6)
