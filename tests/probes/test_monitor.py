"""The monitor on a tiny model: it stops where reading the text afterwards finds the first flagged token."""

import pytest
import torch
from transformers import GenerationConfig

from rerouting.core.errors import UserError
from rerouting.models.generation import generate
from rerouting.models.trunk import Trunk
from rerouting.probes.head import Head
from rerouting.probes.monitor import REFUSAL, Monitor, guarded
from rerouting.probes.saved import Probe
from rerouting.probes.streaming import guarded_stream
from tests.attacks.tiny_target import tiny_target, wordy

LIMIT = 12


@pytest.fixture(scope="module")
def target():
    return tiny_target(wordy())


def probe(skip=1, threshold=0.0, width=32, layer=2):
    draw = torch.Generator().manual_seed(3)
    head = Head({"weight.0": torch.randn(1, width, generator=draw), "bias.0": torch.zeros(1)})
    return Probe(head, "linear", layer, skip, threshold)


def prompts(target):
    return [
        target.tokenizer(text)["input_ids"]
        for text in ("bake bread", "garden paths are long?", "house", "cook it well")
    ]


def afterwards(target, given, answer, one):
    """Scores of every answer token, read at once."""
    ids = torch.tensor([[*given, *answer]])
    state = Trunk(target.model, one.layer)(ids, torch.ones_like(ids), [one.layer])[one.layer]
    return one.head.scores(state[0, len(given) :])


def first_above(scores, one):
    return next(
        (at for at, score in enumerate(scores.tolist()) if at >= one.skip and score > one.threshold), None
    )


@pytest.mark.parametrize("skip", [0, 1, 3])
def test_it_stops_where_reading_afterwards_finds_the_first_flagged_token(target, skip):
    given = prompts(target)
    plain = generate(target.model, target.tokenizer, given, max_new_tokens=LIMIT)
    pairs = list(zip(given, plain, strict=True))
    middle = sorted(float(score) for pair in pairs for score in afterwards(target, *pair, probe())[:-1])
    flagged = 0
    for threshold in middle[len(middle) // 2 :: 5]:
        one = probe(skip, threshold - 1e-4)
        with Monitor(target.model, one) as monitor:
            found = guarded(monitor, target.tokenizer, given, max_new_tokens=LIMIT)
            kept = guarded(monitor, target.tokenizer, given, max_new_tokens=LIMIT, refusal="")
        for prompt, answer, said, bare in zip(given, plain, found, kept, strict=True):
            expected = first_above(afterwards(target, prompt, answer, one), one)
            assert said.flagged == bare.flagged == expected
            whole = target.tokenizer.decode(answer, skip_special_tokens=True)
            assert said.text == (whole if expected is None else REFUSAL)
            assert bare.text == target.tokenizer.decode(answer[:expected], skip_special_tokens=True)
            flagged += expected is not None
    assert flagged > 3


def test_without_an_alarm_nothing_changes_and_the_hook_is_gone(target):
    given = prompts(target)
    plain = generate(target.model, target.tokenizer, given, max_new_tokens=LIMIT)
    block = target.model.model.layers[1]
    with Monitor(target.model, probe(threshold=1e9)) as monitor:
        found = guarded(monitor, target.tokenizer, given, max_new_tokens=LIMIT)
        assert len(block._forward_hooks) == 1
    assert [one.text for one in found] == [
        target.tokenizer.decode(one, skip_special_tokens=True) for one in plain
    ]
    assert all(one.flagged is None and one.highest is not None for one in found)
    assert not block._forward_hooks


def test_what_comes_after_the_end_of_a_turn_is_not_read(target):
    """One answer ends at once; its padding, which the model reads on for the others' sake, raises no alarm."""
    given = prompts(target)
    plain = generate(target.model, target.tokenizer, given, max_new_tokens=LIMIT)
    end = plain[0][1]
    config = target.model.generation_config
    before, config.eos_token_id = config.eos_token_id, [config.eos_token_id, end]
    try:
        short = generate(target.model, target.tokenizer, given, max_new_tokens=LIMIT)
        assert len(short[0]) == 1 and max(map(len, short)) > 6
        score = float(afterwards(target, given[0], short[0], probe(skip=0))[0])
        one = probe(skip=0, threshold=score + 1e-4)
        with Monitor(target.model, one) as monitor:
            found = guarded(monitor, target.tokenizer, given, max_new_tokens=LIMIT)
        assert found[0].flagged is None and found[0].highest == pytest.approx(score, abs=1e-4)
        assert any(row.flagged is not None for row in found[1:])
    finally:
        config.eos_token_id = before


def test_transformers_generate_takes_it_as_a_stopping_and_as_a_logits_hook(target):
    prompt = torch.tensor([prompts(target)[1]])
    plain = target.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=LIMIT, do_sample=False
    )
    answer = plain[0, prompt.shape[1] :].tolist()
    scores = afterwards(target, prompt[0].tolist(), answer, probe(skip=0))
    at = int(scores[:-2].argmax())
    one = probe(skip=0, threshold=float(scores[at]) - 1e-4)
    at = first_above(scores, one)
    options = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": LIMIT, "do_sample": False}
    with Monitor(target.model, one) as monitor:
        stopped = target.model.generate(
            prompt, stopping_criteria=[monitor.batch([0], prompt.shape[1])], **options
        )
    assert monitor.flagged == {0: at} and stopped.shape[1] - prompt.shape[1] == at + 2
    end = target.tokenizer.eos_token_id
    with Monitor(target.model, one) as monitor:
        ended = target.model.generate(prompt, logits_processor=[monitor.ending(end)], **options)
    assert ended[0, prompt.shape[1] :].tolist() == [*answer[: at + 1], end]


def test_streamed_and_batched_stop_at_the_same_token(target):
    stops = 0
    for threshold in (-1e9, -0.5, 0.0, 0.5, 1.0, 1e9):
        one = probe(1, threshold)
        with Monitor(target.model, one) as monitor:
            found = guarded(monitor, target.tokenizer, prompts(target), max_new_tokens=LIMIT)
            bare = guarded(monitor, target.tokenizer, prompts(target), max_new_tokens=LIMIT, refusal="")
        for prompt, said, kept in zip(prompts(target), found, bare, strict=True):
            pieces = list(guarded_stream(target.model, target.tokenizer, one, prompt, max_new_tokens=LIMIT))
            if said.flagged is None:
                assert "".join(pieces) == said.text
                continue
            stops += 1
            assert "".join(pieces) == f"{kept.text}\n{REFUSAL}", "what was told before the alarm stays"
            silent = guarded_stream(
                target.model, target.tokenizer, one, prompt, refusal="", max_new_tokens=LIMIT
            )
            assert "".join(silent) == kept.text
    assert stops > 4


def test_the_logits_hook_starts_anew_with_every_call(target):
    """Rows that were flagged, or had ended, in an earlier call are watched like any other."""
    end = target.tokenizer.eos_token_id
    options = {"max_new_tokens": LIMIT, "do_sample": False}
    first, second = (torch.tensor([prompt]) for prompt in prompts(target)[:2])
    for threshold in (-1e9, 1e9):
        with Monitor(target.model, probe(skip=0, threshold=threshold)) as monitor:
            hook = monitor.ending(end)
            lengths = []
            for given in (first, second, first):
                mask = torch.ones_like(given)
                said = target.model.generate(given, attention_mask=mask, logits_processor=[hook], **options)
                lengths.append(said.shape[1] - given.shape[1])
        assert lengths == ([2, 2, 2] if threshold < 0 else [LIMIT] * 3)


def test_numbers_that_are_none_are_an_alarm(target):
    head = Head({"weight.0": torch.full((1, 32), float("nan")), "bias.0": torch.zeros(1)})
    one = Probe(head, "linear", 2, 0, 1e9)
    with Monitor(target.model, one) as monitor:
        found = guarded(monitor, target.tokenizer, prompts(target), max_new_tokens=LIMIT)
    assert all(said.text == REFUSAL and said.flagged == 0 for said in found)
    told = "".join(
        guarded_stream(target.model, target.tokenizer, one, prompts(target)[0], max_new_tokens=LIMIT)
    )
    assert told == REFUSAL


def test_what_it_cannot_watch_it_refuses(target):
    with pytest.raises(UserError, match="layer 3"):
        Monitor(target.model, probe(layer=3))
    given = torch.tensor([prompts(target)[0]])
    with Monitor(target.model, probe(width=31)) as monitor, pytest.raises(UserError, match="size 31"):
        target.model(given)
    beams = GenerationConfig(num_beams=2, max_new_tokens=3, pad_token_id=0)
    with Monitor(target.model, probe()) as monitor, pytest.raises(UserError, match="beams"):
        target.model.generate(
            given,
            attention_mask=torch.ones_like(given),
            generation_config=beams,
            stopping_criteria=[monitor.batch([0], given.shape[1])],
        )
    monitor = Monitor(target.model, probe())
    with pytest.raises(UserError, match="context"):
        monitor.alarms([0], 1, [5])
