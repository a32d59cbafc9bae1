"""Attacks on a tiny model: what they claim, in float32."""

import pytest
import torch

from rerouting.attacks.best_of_n import BestOfN
from rerouting.attacks.embedding import Embedding
from rerouting.attacks.no_end import NoEnd, banned
from rerouting.attacks.prefill import Prefill
from rerouting.attacks.refusal_ablation import RefusalAblation
from rerouting.attacks.repe import Repe, reading_vectors
from rerouting.core.contracts import Resources, Verdict
from rerouting.core.records import Chat, Message
from rerouting.models.config import ModelConfig
from rerouting.models.generation import generate
from rerouting.models.loading import load
from rerouting.models.steering_hooks import without
from rerouting.targets.target import Target
from tests.pipeline.tiny_run import save_model

CHATS = [
    Chat("a", (Message("user", "How do I bake?"),), target="To bake, first"),
    Chat("b", (Message("user", "Go on"),), target="You go"),
]
RESOURCES = Resources(0, lambda judged: [Verdict(False, "no") for _ in judged], assistant=None)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("model"))
    return Target(load(ModelConfig(name=str(folder), dtype="float32", device="cpu")), 4)


def test_embedding_lowers_the_loss_and_keeps_its_exact_input(target):
    (attempt,) = Embedding(steps=30, lr=0.5).run(target, CHATS[:1], RESOURCES)
    assert attempt.trace["best_loss"] < attempt.trace["first_loss"]
    assert attempt.embeddings.dtype == torch.float32 and attempt.embeddings.ndim == 2
    assert isinstance(target.answer([attempt])[0], str)


def test_reading_vector_by_hand():
    direction = torch.tensor([0.6, -0.8])
    harmless = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0))
    found = reading_vectors(harmless + 5 * direction, harmless)["vectors"]
    assert torch.allclose(found, direction.expand(3, 2), atol=1e-5)


@pytest.mark.parametrize(
    "attack", [Repe(pairs=4, coefficient=-3.0, first=0.0, last=1.0), RefusalAblation(prompts=4)]
)
def test_steering_is_taken_off_again(target, attack):
    plain = target.model(input_ids=torch.tensor([[5, 6, 7]])).logits
    resources = Resources(0, RESOURCES.judge, None, fitted=attack.fit(target, RESOURCES))
    attempts = attack.run(target, CHATS, resources)
    assert all(attempt.answer is not None for attempt in attempts)
    assert torch.equal(target.model(input_ids=torch.tensor([[5, 6, 7]])).logits, plain)


def test_ablation_leaves_nothing_along_the_direction(target):
    unit = torch.nn.functional.normalize(torch.randn(32, generator=torch.Generator().manual_seed(1)), dim=0)
    assert float((without(unit, torch.randn(2, 3, 32)) @ unit).abs().max()) < 1e-5


def test_an_answer_that_may_not_end_has_its_full_length(target):
    config, before = target.model.generation_config, target.model.generation_config.eos_token_id
    prompts = [target.prompt_ids(attempt) for attempt in Prefill().prompts(CHATS)]
    (first, _), (second, _) = (
        new[:2] for new in generate(target.model, target.tokenizer, prompts, max_new_tokens=4)
    )
    config.eos_token_id = [first, second]  # what the model would write
    try:
        assert target.answer(Prefill().prompts(CHATS)) == ["", ""]
        attempts = NoEnd().run(target, CHATS, RESOURCES)
    finally:
        config.eos_token_id = before
    assert all(attempt.answer for attempt in attempts)
    assert [attempt.prefill for attempt in attempts] == ["To bake, first:\n\n", "You go:\n\n"]
    with banned(target.model, [first, second, 10**6]):
        new = generate(target.model, target.tokenizer, prompts, max_new_tokens=4)
    assert [len(ids) for ids in new] == [4, 4] and not {first, second} & {*new[0], *new[1]}
    assert generate(target.model, target.tokenizer, prompts, max_new_tokens=1) == [[first], [second]], (
        "taken off"
    )


def test_best_of_n_stops_at_success_and_keeps_what_was_not_judged(target):
    asked = []

    def judge(judged):
        asked.append(len(judged))
        if len(asked) == 1:
            return [Verdict(None, "prose"), Verdict(False, "no")]
        return [Verdict(False, "no"), Verdict(True, "yes")][: len(judged)]

    attempts = BestOfN(n=3).run(target, CHATS, Resources(0, judge, None))
    assert asked == [2, 2, 1]
    samples = [(one.chat.id, one.trace["sample"]) for one in attempts]
    first, second = (chat.id for chat in CHATS)
    assert samples == [(first, 0), (first, 1), (first, 2), (second, 0), (second, 1)]
    assert attempts[0].trace["verdicts"] == {"yes": 0, "no": 2, "unscored": 1}


def test_best_of_n_keeps_as_many_failures_as_asked_and_every_success(target):
    judged_no = iter([False, False, False, True])
    judge = lambda judged: [Verdict(next(judged_no), "") for _ in judged]  # noqa: E731
    attempts = BestOfN(n=9, keep=1).run(target, CHATS[:1], Resources(0, judge, None))
    assert [one.trace["sample"] for one in attempts] == [0, 3] and attempts[0].trace["samples"] == 4
