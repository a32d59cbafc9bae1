"""Attacks on a tiny model: what they claim, in float32."""

import pytest
import torch

from rerouting.attacks.best_of_n import BestOfN
from rerouting.attacks.embedding import Embedding
from rerouting.attacks.gcg import Gcg, _Search
from rerouting.attacks.refusal_ablation import RefusalAblation
from rerouting.attacks.repe import Repe, reading_vectors
from rerouting.core.contracts import Resources, Verdict
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.models.config import ModelConfig
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


def test_gcg_lowers_the_loss_and_repeats_itself(target):
    attack = Gcg(steps=4, candidates=12, length=5, top_k=16)
    one, two = attack.run(target, CHATS[:1], RESOURCES)[0], attack.run(target, CHATS[:1], RESOURCES)[0]
    assert one.trace["best_loss"] < one.trace["first_loss"]
    assert one.ids == two.ids


def test_gcg_with_shared_prefix_equals_whole_forward_passes(target):
    search = _Search(Gcg(length=5), target, CHATS[0])
    suffixes = torch.tensor([[9, 12, 20, 31, 17], [40, 41, 42, 43, 44]])
    whole = []
    for suffix in suffixes.tolist():
        ids = torch.tensor([[*search.before, *suffix, *search.after, *search.wanted.tolist()]])
        logits = target.model(input_ids=ids).logits[0, -len(search.wanted) - 1 : -1]
        whole.append(torch.nn.functional.cross_entropy(logits, search.wanted))
    assert torch.allclose(search.losses(suffixes), torch.stack(whole), atol=1e-5)


def test_gcg_halves_its_batch_when_memory_runs_out(target, monkeypatch):
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


@pytest.mark.parametrize("attack", [Gcg(steps=1), Embedding(steps=1)])
def test_a_behaviour_without_a_target(target, attack):
    with pytest.raises(UserError, match="x has no target"):
        attack.run(target, [Chat("x", (Message("user", "Hm"),))], RESOURCES)


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
