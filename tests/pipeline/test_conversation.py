"""A conversation with both models: each keeps its own turns, and the trace is what two plain passes give."""

import pytest
import torch

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.formatting import render_prompt
from rerouting.models.generation import generate
from rerouting.pipeline.chat_style import Style
from rerouting.pipeline.conversation import Conversation, Done, Exchange, Piece, Trip
from rerouting.pipeline.trip import TripWatch, divergence, lowest_cosine
from tests.pipeline.tiny_pair import LAYERS, tiny_pair

STYLE = Style(max_new_tokens=8)


@pytest.fixture(scope="module")
def pair():
    return tiny_pair()


def pieces(events, model):
    return [event for event in events if isinstance(event, Piece) and event.model == model]


def answer(pair, model, messages, prefill="", **options):
    loaded = pair.models[model]
    prompt = render_prompt(Chat("x", tuple(messages)), loaded.tokenizer, prefill)
    new = generate(loaded.model, loaded.tokenizer, [prompt], max_new_tokens=8, **options)[0]
    return loaded.tokenizer.decode(new, skip_special_tokens=True)


def test_each_model_goes_on_from_its_own_answers(pair):
    talk = Conversation(pair, STYLE)
    list(talk.ask("one"))
    list(talk.ask("two"))
    first, second = talk.exchanges
    assert first.base != first.rerouted
    for model in ("base", "rerouted"):
        said = getattr(first, model)
        assert said == answer(pair, model, [Message("user", "one")])
        turns = [Message("user", "one"), Message("assistant", said), Message("user", "two")]
        assert getattr(second, model) == answer(pair, model, turns)
    talk.reset()
    list(talk.ask("one"))
    assert talk.exchanges == [first]


def test_system_prompt_and_prefill(pair):
    talk = Conversation(pair, STYLE, system="be brief")
    events = list(talk.ask("one", prefill="Sure: é"))
    turns = [Message("system", "be brief"), Message("user", "one")]
    for model in ("base", "rerouted"):
        assert getattr(talk.exchanges[0], model) == "Sure: é" + answer(pair, model, turns, "Sure: é")
        given = [piece for piece in pieces(events, model) if piece.given]
        assert "".join(piece.text for piece in given) == "Sure: é"
        assert [piece.number for piece in pieces(events, model)] == list(
            range(1, len(given) + 8 + 1)
        )  # one token a byte, and eight new ones


def test_sampling_follows_the_seed(pair):
    said = [Conversation(pair, Style(8, temperature=1.0, seed=seed)).ask("one") for seed in (0, 0, 1)]
    texts = ["".join(piece.text for piece in pieces(events, "base")) for events in map(list, said)]
    assert texts[0] == texts[1] != texts[2]


def test_trace_by_hand(pair):
    talk = Conversation(pair, STYLE)
    list(talk.ask("before"))
    said = talk.exchanges[0]
    events = pieces(list(talk.ask("one", prefill="Yes")), "rerouted")
    tokenizer, (base, rerouted) = pair.models["base"].tokenizer, (one.model for one in pair.models.values())
    turns = (Message("user", "before"), Message("assistant", said.rerouted), Message("user", "one"))
    prompt = render_prompt(Chat("x", turns), tokenizer, "Yes")
    ids = prompt + generate(rerouted, tokenizer, [prompt], max_new_tokens=8)[0]
    with torch.no_grad():
        old, new = (model(torch.tensor([ids]), output_hidden_states=True) for model in (base, rerouted))
    first = len(prompt) - 3 - 1  # the token before the prefill's first: the prefill is three bytes
    assert [piece.given for piece in events] == [True] * 3 + [False] * 8
    states = [block_states(model, ids) for model in (base, rerouted)]
    for at, piece in enumerate(events):
        cosines = [
            torch.cosine_similarity(states[0][i][first + at], states[1][i][first + at], dim=0) for i in LAYERS
        ]
        assert piece.cosine == pytest.approx(float(min(cosines)), abs=1e-4)
        own, changed = (out.logits[0, first + at].log_softmax(-1) for out in (old, new))
        assert piece.kl == pytest.approx(float((own.exp() * (own - changed)).sum()), abs=1e-3)
    assert all(piece.cosine < 0.999 for piece in events)


def block_states(model, ids):
    """Output of each block, by layer."""
    seen = {}
    hooks = [
        block.register_forward_hook(lambda m, a, out, at=at: seen.update({at + 1: out}))
        for at, block in enumerate(model.model.layers)
    ]
    with torch.no_grad():
        model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return {
        layer: (out[0] if isinstance(out, tuple) else out).view(len(ids), -1) for layer, out in seen.items()
    }


def test_a_model_against_itself_never_trips():
    events = list(Conversation(tiny_pair(change=0.0, ends=False), STYLE).ask("one"))
    traced = pieces(events, "rerouted")
    assert len(traced) == 8
    assert all(piece.cosine == pytest.approx(1, abs=1e-5) and piece.kl < 1e-5 for piece in traced)
    assert not [event for event in events if isinstance(event, Trip)]
    assert all(piece.cosine is None and piece.kl is None for piece in pieces(events, "base"))


def test_a_changed_model_trips_where_its_states_are_low(pair):
    events = list(Conversation(pair, Style(8, trip_below=0.9999)).ask("one"))
    assert [event for event in events if isinstance(event, Trip)] == [Trip(1)]
    place = events.index(Trip(1))
    assert len(pieces(events[:place], "rerouted")) == 3


@pytest.mark.parametrize(
    ("cosines", "ends", "expected"),
    [
        ([1, 0.2, 0.2, 0.2, 1], False, 2),
        ([1, 0.2, 0.2, 1, 0.2, 0.2], False, None),
        ([1, 0.2, 0.2, 1, 0.2, 0.2], True, 5),
        ([0.2], True, 1),
        ([1, 1], True, None),
        ([0.2, None, 0.2, 0.2, 0.2], False, 3),
        ([0.2, 0.2, 0.2, 1, 0.2, 0.2, 0.2], False, 1),
    ],
)
def test_the_trip_is_where_the_cosine_stays_low(cosines, ends, expected):
    watch = TripWatch(below=0.5, hold=3)
    told = [watch.see(one, ends and at == len(cosines) - 1) for at, one in enumerate(cosines)]
    assert watch.at == expected
    assert sum(told) == (expected is not None)


def test_cosine_and_divergence_by_hand():
    base = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    rerouted = torch.tensor([[2.0, 0.0], [4.0, 3.0]])
    assert lowest_cosine(base, rerouted) == pytest.approx(24 / 25)
    half, quarter = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    by_hand = 0.5 * (torch.tensor(2.0).log() + torch.tensor(2 / 3).log())
    assert divergence(half, quarter) == pytest.approx(float(by_hand), abs=1e-6)
    padded = torch.tensor([0.5, 0.5, 0.0]).log()
    assert divergence(padded, padded) == 0
    assert divergence(torch.tensor([0.5, 0.5]).log(), torch.tensor([1.0, 0.0]).log()) is None
    assert lowest_cosine(torch.full((1, 2), float("nan")), rerouted[:1]) is None


def test_in_turn_the_base_speaks_first(pair):
    events = list(Conversation(pair, STYLE).ask("one", together=False))
    models = [event.model for event in events if not isinstance(event, Trip)]
    assert models == sorted(models)
    by_turns = [
        piece.model for piece in list(Conversation(pair, STYLE).ask("one")) if isinstance(piece, Piece)
    ]
    assert by_turns[:4] == ["base", "rerouted", "base", "rerouted"]


def test_what_was_written_before_a_stop_is_the_turn(pair):
    talk = Conversation(pair, STYLE)
    events = talk.ask("one")
    seen = [next(events) for _ in range(6)]
    events.close()
    assert talk.exchanges == [
        Exchange(
            "one", *("".join(piece.text for piece in pieces(seen, model)) for model in ("base", "rerouted"))
        )
    ]
    assert len(list(talk.ask("two"))) > 16


def test_a_conversation_over_the_context_is_refused_and_forgotten():
    pair = tiny_pair(context=120)
    talk = Conversation(pair, STYLE)
    with pytest.raises(UserError, match=r"tokens .* the model reads 120 .* start a new one"):
        talk.ask("x" * 120)
    assert talk.exchanges == []


def test_an_answer_stops_where_the_context_ends():
    long = tiny_pair(ends=False)
    prompt = render_prompt(Chat("x", (Message("user", "one"),)), long.models["base"].tokenizer)
    events = list(Conversation(tiny_pair(context=len(prompt) + 3, ends=False), STYLE).ask("one"))
    assert [(event.model, event.why) for event in events if isinstance(event, Done)] == [
        ("base", "context"),
        ("rerouted", "context"),
    ]
    assert len(pieces(events, "base")) == 3
    whole = list(Conversation(long, STYLE).ask("one"))
    assert {event.why for event in whole if isinstance(event, Done)} == {"length"}


def test_half_a_surrogate_pair_is_no_bug(pair):
    talk = Conversation(pair, STYLE)
    list(talk.ask("\ud83d one", prefill="\udca9"))
    assert talk.exchanges[0].user == "? one"
