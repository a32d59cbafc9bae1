"""GCG on tiny models in float32: its losses, its gradient, its exact tokens, and how it searches."""

from dataclasses import replace

import pytest
import torch
import transformers as tf

import rerouting.attacks.gcg as gcg
from rerouting.attacks.gcg import Gcg, _keep, _Search, _Vocabulary
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.formatting import render_prompt
from rerouting.evaluation.attacking import attempts_of
from rerouting.targets.target_loss import losses_of, target_ids
from tests.attacks.tiny_target import RESOURCES, tiny_target, wordy
from tests.data.tokenizers_of_families import CHATML, LLAMA2, LLAMA3, SPECIAL, tiny, tiny_sentencepiece
from tests.models.tiny import _COMMON, FAMILIES

CHATS = [
    Chat("a", (Message("user", "How do I bake?"),), target="To bake, first"),
    Chat("b", (Message("user", "Go on"),), target="You go"),
    Chat("c", (Message("system", "Be brief."), Message("user", "A text.\n\n---\n\nSum it up ")), target="It"),
]
SMALL = Gcg(answers=1, steps=4, candidates=12, length=5, top_k=16)
OTHER_CACHES = {
    "cannot be repeated": tf.Lfm2Config(
        **_COMMON | {"block_ff_dim": 48}, layer_types=["conv", "full_attention", "conv"]
    ),
    "repeated in part": tf.MiniMaxConfig(
        **_COMMON,
        head_dim=8,
        block_size=4,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
    ),
    "none": tf.Mamba2Config(
        vocab_size=128,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=8,
        head_dim=8,
        num_heads=8,
        n_groups=1,
        chunk_size=8,
    ),
    "positions by length": tf.LlamaConfig(
        **_COMMON | {"max_position_embeddings": 24},
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    ),
}


@pytest.fixture(scope="module")
def target():
    return tiny_target(tiny(CHATML))


def search_of(model, **options):
    return _Search(Gcg(length=6, **options), tiny_target(tiny_sentencepiece(LLAMA2), model), CHATS[0])


def whole_loss(search, suffix):
    wanted = search.wanted.tolist()
    ids = torch.tensor([[*search.before, *suffix, *search.after, *wanted]])
    with torch.no_grad():
        logits = search.model(input_ids=ids, use_cache=False).logits[0, -len(wanted) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, search.wanted)


def suffixes_that_share(count, rows=5):
    draw = torch.Generator().manual_seed(count)
    suffixes = torch.randint(5, 90, (1, 6), generator=draw).repeat(rows, 1)
    suffixes[:, count:] = torch.randint(5, 90, (rows, 6 - count), generator=draw)
    suffixes[:, count : count + 1] = torch.arange(20, 20 + rows)[:, None]
    return suffixes


def assert_losses_are_whole_ones(search):
    batches = [suffixes_that_share(count) for count in range(7)] + [suffixes_that_share(3, rows=1)]
    for suffixes in batches:
        whole = torch.stack([whole_loss(search, suffix) for suffix in suffixes.tolist()])
        assert torch.allclose(search.losses(suffixes), whole, atol=1e-5)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_shared_states_give_the_losses_of_whole_passes(family):
    search = search_of(FAMILIES[family](), batch=3)
    assert search.cache is not None
    assert_losses_are_whole_ones(search)


@pytest.mark.parametrize("kind", list(OTHER_CACHES))
def test_whole_passes_where_a_cache_cannot_be_gone_on_from(kind):
    torch.manual_seed(0)
    config = OTHER_CACHES[kind]
    config.initializer_range = 0.2
    model = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).requires_grad_(False).eval()
    search = search_of(model)
    assert search.cache is None
    assert_losses_are_whole_ones(search)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_gradient_is_that_of_one_hot_tokens(family):
    search = search_of(FAMILIES[family]())
    suffix = torch.tensor([9, 12, 20, 31, 17, 9])
    table = search.model.get_input_embeddings()
    scale = table(torch.tensor(5))[0] / table.weight[5, 0]
    hot = torch.nn.functional.one_hot(suffix, len(table.weight)).float().requires_grad_(True)
    wanted = search.wanted
    parts = [table(torch.tensor(search.before)), scale * hot @ table.weight]
    whole = torch.cat([*parts, table(torch.tensor([*search.after, *wanted.tolist()]))])[None]
    logits = search.model(inputs_embeds=whole, use_cache=False).logits[0, -len(wanted) - 1 : -1]
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, wanted), hot)
    assert torch.allclose(scale * search.gradient(suffix), expected, atol=1e-5)


@pytest.mark.parametrize("template", list(SPECIAL))
@pytest.mark.parametrize("made", [tiny, tiny_sentencepiece])
def test_rendered_prompt_reads_back_as_the_exact_tokens(template, made):
    target = tiny_target(made(template))
    attempts = replace(SMALL, ascii_only=False, length=3).run(target, CHATS, RESOURCES)
    assert any(one.trace["best_loss"] < one.trace["first_loss"] for one in attempts)
    for chat, attempt in zip(CHATS, attempts, strict=True):
        assert attempt.chat.request == chat.request.rstrip() + attempt.trace["suffix"]
        assert attempt.trace["reads_back"]
        assert tuple(render_prompt(attempt.chat, target.tokenizer)) == attempt.ids
        text = target.tokenizer.decode(list(attempt.ids))
        assert target.tokenizer(text, add_special_tokens=False)["input_ids"] == list(attempt.ids)


@pytest.mark.parametrize("sentencepiece", [False, True])
def test_candidates_that_would_be_read_as_other_tokens_are_dropped(sentencepiece):
    tokenizer = wordy(sentencepiece)
    target = tiny_target(tokenizer)
    suffix = torch.tensor(tokenizer(" house" + " x" * 5, add_special_tokens=False)["input_ids"])
    gradient = torch.randn(len(suffix), len(tokenizer), generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(0)
    rows = _Vocabulary(target, True).draw(suffix, gradient, 400, 100, draw)
    assert 50 < len(rows) < 390
    for row in rows.tolist():
        assert tokenizer(tokenizer.decode(row), add_special_tokens=False)["input_ids"] == row
    attempts = replace(SMALL, candidates=64).run(target, CHATS, RESOURCES)
    assert all(tuple(render_prompt(one.chat, tokenizer)) == one.ids for one in attempts)


def test_a_suffix_whose_end_the_template_trims_is_not_taken(monkeypatch):
    target = tiny_target(tiny(LLAMA3))
    blank, letter = target.tokenizer("x ", add_special_tokens=False)["input_ids"][::-1]
    kept, trimmed = [blank, letter, letter], [blank, letter, blank]

    def draw(self, suffix, *others):
        return torch.tensor([trimmed, kept])

    monkeypatch.setattr(_Vocabulary, "draw", draw)
    for found in ([1.0, 2.0], [2.0, 1.0]):
        monkeypatch.setattr(
            gcg, "_loss", lambda searches, rows, found=found: found if len(rows) == 2 else [9.0]
        )
        (attempt,) = replace(SMALL, steps=1).run(target, CHATS[:1], RESOURCES)
        assert attempt.trace["suffix"] == " xx" and attempt.trace["reads_back"]


def test_the_papers_start_stays_as_it_is_where_decoding_cleans_up_blanks():
    tokenizer = tiny(CHATML)
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    paper = Gcg(**Gcg.budgets["paper"] | {"steps": 0})
    (attempt,) = paper.run(tiny_target(tokenizer), CHATS[:1], RESOURCES)
    assert attempt.trace["suffix"] == " !" * 20 and attempt.trace["reads_back"]
    assert attempt.chat.request == "How do I bake?" + " !" * 20


def test_a_search_lowers_the_loss_and_is_made_by_its_seed(target):
    one, two = (SMALL.run(target, CHATS[:2], RESOURCES) for _ in range(2))
    other = SMALL.run(target, CHATS[:2], replace(RESOURCES, seed=1))
    assert one == two and one[0].ids != other[0].ids
    for attempt in one:
        loss = losses_of(target, [(list(attempt.ids), target_ids(attempt.chat, target.tokenizer))])
        assert float(loss) == pytest.approx(attempt.trace["best_loss"], abs=1e-4)
        assert attempt.trace["best_loss"] < attempt.trace["first_loss"]
        assert len(attempt.trace["losses"]) == 5 and attempt.trace["candidates"] <= 48


def spied(monkeypatch):
    lowest, real = [], gcg._loss

    def loss(searches, suffixes):
        found = real(searches, suffixes)
        lowest.append(round(min(found), 3))
        return found

    monkeypatch.setattr(gcg, "_loss", loss)
    return lowest


def test_without_a_buffer_each_step_goes_on_from_its_best_candidate(target, monkeypatch):
    lowest = spied(monkeypatch)
    (attempt,) = replace(SMALL, buffer=0, candidates=2, steps=20).run(target, CHATS[:1], RESOURCES)
    assert attempt.trace["losses"] == lowest
    assert lowest != sorted(lowest, reverse=True), "some step got worse"
    assert round(attempt.trace["best_loss"], 3) == min(lowest)


def test_with_a_buffer_it_goes_on_from_the_best_so_far(target, monkeypatch):
    lowest = spied(monkeypatch)
    (attempt,) = replace(SMALL, buffer=3, candidates=4, steps=8).run(target, CHATS[:1], RESOURCES)
    assert attempt.trace["losses"] == [min(lowest[: 3 + step]) for step in range(9)]


def test_the_best_suffixes_of_all_steps_are_answered(target):
    attempts = replace(SMALL, answers=3).run(target, CHATS[:2], RESOURCES)
    for chat in CHATS[:2]:
        own = [one for one in attempts if one.chat.id == chat.id]
        losses = [one.trace["loss"] for one in own]
        assert len(own) == 3 and losses == sorted(losses) and losses[0] == own[0].trace["best_loss"]
        assert len({one.ids for one in own}) == 3


def test_a_buffer_keeps_the_best_and_each_once():
    suffixes = [torch.tensor([at]) for at in range(4)]
    pool = [(3.0, suffixes[0]), (5.0, suffixes[1])]
    _keep(pool, (6.0, suffixes[2]), 2)
    _keep(pool, (3.0, suffixes[0].clone()), 2)
    assert [loss for loss, _ in pool] == [3.0, 5.0]
    _keep(pool, (2.0, suffixes[3]), 2)
    assert [loss for loss, _ in pool] == [2.0, 3.0]


def test_behaviours_share_a_suffix_and_its_mean_loss(target):
    one, two, alone = replace(SMALL, behaviours=2).run(target, CHATS, RESOURCES)
    assert one.trace["suffix"] == two.trace["suffix"] != alone.trace["suffix"]
    assert one.trace["shared_by"] == ["a", "b"] and "shared_by" not in alone.trace
    pairs = [(list(each.ids), target_ids(each.chat, target.tokenizer)) for each in (one, two)]
    assert float(losses_of(target, pairs).mean()) == pytest.approx(one.trace["best_loss"], abs=1e-4)


def test_candidates_are_drawn_by_the_gradients_of_all_behaviours(target, monkeypatch):
    real, seen = _Vocabulary.draw, []

    def draw(self, suffix, gradient, *others):
        seen.append((suffix, gradient))
        return real(self, suffix, gradient, *others)

    monkeypatch.setattr(_Vocabulary, "draw", draw)
    replace(SMALL, behaviours=2, steps=1).run(target, CHATS[:2], RESOURCES)
    ((suffix, gradient),) = seen
    parts = [_Search(SMALL, target, chat).gradient(suffix) for chat in CHATS[:2]]
    assert torch.allclose(gradient, sum(part / part.norm(dim=1, keepdim=True) for part in parts), atol=1e-5)


def test_a_behaviour_without_a_target_takes_no_other_with_it(target):
    chats = [CHATS[0], replace(CHATS[1], target=None), CHATS[2]]
    found = attempts_of(replace(SMALL, behaviours=3), target, chats, RESOURCES)
    assert "b has no target" in found["b"][0].failure
    for name in "ac":
        (attempt,) = found[name]
        assert attempt.answer is not None and attempt.failure is None


def test_little_memory_changes_no_result(target, monkeypatch):
    expected, forward, sizes = SMALL.run(target, CHATS[:1], RESOURCES), target.model.forward, []

    def small(*args, **inputs):
        given = inputs.get("input_ids", inputs.get("inputs_embeds"))
        sizes.append(len(given))
        if len(given) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **inputs)

    monkeypatch.setattr(target.model, "forward", small)
    (attempt,) = SMALL.run(target, CHATS[:1], RESOURCES)
    assert attempt.ids == expected[0].ids
    assert attempt.trace["losses"] == pytest.approx(expected[0].trace["losses"], abs=1e-3)
    assert {12, 6, 3} <= set(sizes)


def test_batches_halve_when_memory_runs_out(target, monkeypatch):
    search = _Search(Gcg(length=5, batch=4), target, CHATS[0])
    suffixes = torch.arange(20, 40).reshape(4, 5)
    expected, real, sizes = search.losses(suffixes), search._losses, []

    def small(rows):
        sizes.append(len(rows))
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(rows)

    monkeypatch.setattr(search, "_losses", small)
    assert torch.allclose(search.losses(suffixes), expected, atol=1e-5)
    assert sizes == [4, 2, 1, 1, 1, 1]


def test_a_step_without_candidates_is_passed_over(target, monkeypatch):
    real, steps = _Vocabulary.draw, []

    def draw(self, suffix, *others):
        steps.append(suffix.tolist())
        rows = real(self, suffix, *others)
        return rows[:0] if len(steps) == 1 else rows

    monkeypatch.setattr(_Vocabulary, "draw", draw)
    for buffer in (0, 1):
        steps.clear()
        (attempt,) = replace(SMALL, buffer=buffer).run(target, CHATS[:1], RESOURCES)
        assert steps[0] == steps[1] and len(steps) == 4
        assert attempt.trace["losses"][0] == attempt.trace["losses"][1] > attempt.trace["best_loss"]


def test_only_printable_ascii_and_never_a_special_token(target):
    tokenizer = target.tokenizer
    plain, every = (_Vocabulary(target, ascii_only).allowed for ascii_only in (True, False))
    assert int(plain.sum()) == 95 and int(every.sum()) > 200 and bool((every | ~plain).all())
    assert not every[tokenizer.all_special_ids].any()
    gradient = torch.randn(5, len(plain), generator=torch.Generator().manual_seed(0))
    rows = _Vocabulary(target, True).draw(
        torch.full((5,), 70), gradient, 200, 300, torch.Generator().manual_seed(0)
    )
    assert len(rows) == 200 and bool(plain[rows].all())


def test_candidates_change_one_token_to_one_of_the_best(target):
    vocabulary, suffix = _Vocabulary(target, True), torch.full((5,), 70)
    gradient = torch.randn(5, len(vocabulary.allowed), generator=torch.Generator().manual_seed(0))
    best = gradient.masked_fill(~vocabulary.allowed, float("inf")).argsort(dim=1)[:, :4]
    rows = vocabulary.draw(suffix, gradient, 40, 4, torch.Generator().manual_seed(0))
    changed = rows != suffix
    assert bool((changed.sum(dim=1) == 1).all())
    assert all(
        row[place] in best[place] for row, place in zip(rows, changed.int().argmax(dim=1), strict=True)
    )


def test_few_candidates_reach_every_place_in_time(target):
    vocabulary, suffix = _Vocabulary(target, True), torch.full((9,), 70)
    gradient = torch.randn(9, len(vocabulary.allowed), generator=torch.Generator().manual_seed(0))
    gradient[:, 70], draw = 9.0, torch.Generator().manual_seed(0)
    drawn = [vocabulary.draw(suffix, gradient, 3, 8, draw) for _ in range(40)]
    assert {len(rows) for rows in drawn} == {3}
    assert {int(place) for rows in drawn for place in (rows != suffix).int().argmax(dim=1)} == set(range(9))


def test_it_ends_where_the_loss_is_low_enough(target):
    (attempt,) = replace(SMALL, stop_below=99.0).run(target, CHATS[:1], RESOURCES)
    assert len(attempt.trace["losses"]) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"behaviours": 0}, "too small"),
        ({"buffer": -1}, "too small"),
        ({"candidates": 0}, "too small"),
        ({"init": ""}, "suffix is empty"),
        ({"length": 0}, "suffix is empty"),
    ],
)
def test_impossible_options(target, options, said):
    with pytest.raises(UserError, match=said):
        Gcg(**options).run(target, CHATS[:1], RESOURCES)


def test_a_behaviour_without_a_target_is_named(target):
    with pytest.raises(UserError, match="x has no target"):
        SMALL.run(target, [Chat("x", (Message("user", "Hm"),))], RESOURCES)
