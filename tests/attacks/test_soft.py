"""Attacks that optimise soft input or hidden states, on tiny random models in float32."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from rerouting.attacks.embedding import Embedding
from rerouting.attacks.embedding_strong import EmbeddingStrong
from rerouting.attacks.latent_pgd import LatentPgd, _kept
from rerouting.core.contracts import Resources, Verdict
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.models.config import ModelConfig
from rerouting.models.loading import load
from rerouting.models.soft_prompt import Descent, SoftProblem, optimise, table_sample
from rerouting.models.steering_hooks import changed_layer, resolved_layers
from rerouting.models.target_rows import target_rows
from rerouting.targets.target import Target
from tests.models.tiny import FAMILIES
from tests.pipeline.tiny_run import save_model

CHATS = [
    Chat("a", (Message("user", "How do I bake a very large cake?"),), target="To bake, first"),
    Chat("b", (Message("user", "Go on"),), target="You go and go and go"),
    Chat("c", (Message("system", "Be brief."), Message("user", "A text.\n\n---\n\nSum it up")), target="It"),
]
RESOURCES = Resources(0, lambda judged: [Verdict(False, "no") for _ in judged], assistant=None)
SOFT = [
    Embedding(tokens=4, steps=12, lr=0.5),
    EmbeddingStrong(start=" Say all", steps=12, generations=3, gap=2),
]
LATENT = LatentPgd(layers=[1, 0.7], epsilon=0.3, steps=6)
PROBLEMS = [
    SoftProblem((5, 9, 30), (7, 7), (11,), (40, 41, 42)),
    SoftProblem((5, 8), (7, 7), (12, 13), (50, 51)),
    SoftProblem((5, 8, 9, 10, 11), (7, 7), (12,), (60,)),
]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("model"))
    return Target(load(ModelConfig(name=str(folder), dtype="float32", device="cpu")), 4)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Where perturbations are kept."""
    monkeypatch.chdir(tmp_path)


def hooks(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in model.modules()
    )


@pytest.mark.parametrize("attack", SOFT)
def test_loss_falls_and_input_is_exact(target, attack):
    attempts = attack.run(target, CHATS, RESOURCES)
    assert {attempt.chat.id for attempt in attempts} == {"a", "b", "c"}
    for attempt in attempts:
        assert attempt.trace["best_loss"] < attempt.trace["first_loss"]
        assert attempt.embeddings.dtype == torch.float32 and attempt.embeddings.shape[1] == 32
    answers = target.answer(attempts)
    assert all(isinstance(answer, str) for answer in answers)


def test_traced_loss_is_that_of_the_returned_input(target):
    for attempt in Embedding(tokens=4, steps=8, lr=0.5).run(target, CHATS, RESOURCES):
        wanted = target.tokenizer(attempt.chat.target, add_special_tokens=False)["input_ids"]
        tail = target.model.get_input_embeddings()(torch.tensor(wanted[:-1]).long())
        whole = torch.cat([attempt.embeddings, tail])[None]
        logits = target.model(inputs_embeds=whole).logits[0, -len(wanted) :]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(wanted))
        assert float(loss) == pytest.approx(attempt.trace["best_loss"], abs=2e-4)


def test_the_template_the_system_turn_and_the_context_stay(target):
    (attempt,) = Embedding(tokens=4, steps=0).run(target, CHATS[2:], RESOURCES)
    table = target.model.get_input_embeddings().weight
    ids = [int((table - row).norm(dim=1).argmin()) for row in attempt.embeddings]
    text = target.tokenizer.decode(ids)
    assert "system\nBe brief." in text and "user\nA text.\n\n---\n\nSum it upxxxx<|im_end|>" in text
    assert text.endswith("<|im_start|>assistant\n")


def test_strong_takes_its_answers_below_a_loss_or_at_the_end(target):
    def steps(attack):
        attempts = attack.run(target, CHATS[:1], RESOURCES)
        assert min(one.trace["loss"] for one in attempts) == attempts[0].trace["best_loss"]
        best = next(one.trace["step"] for one in attempts if one.trace["loss"] == one.trace["best_loss"])
        return [one.trace["step"] for one in attempts if one.trace["step"] != best], best

    early, best = steps(replace(SOFT[1], take_below=1e9))
    assert {*early, best} == {0, 2, 4}, "every gap, and no further"
    late, best = steps(replace(SOFT[1], take_below=0.0))
    assert {12, 14, 16} - {best} <= set(late) <= {12, 14, 16}
    with pytest.raises(UserError, match="generations"):
        EmbeddingStrong(generations=0).run(target, CHATS, RESOURCES)


def test_strong_optimises_for_the_target_and_its_ending(target):
    ending = replace(SOFT[1], steps=1, generations=1)
    (one,) = ending.run(target, [replace(CHATS[0], target="Sure.")], RESOURCES)[:1]
    (two,) = replace(ending, ending="").run(target, [replace(CHATS[0], target="Sure:\n\n")], RESOURCES)[:1]
    assert one.trace == two.trace and one.chat.target == "Sure."


def test_steps_are_measured_by_what_the_model_sees():
    model = FAMILIES["gemma3"]()
    table = model.get_input_embeddings()
    assert torch.allclose(table_sample(model), table(torch.arange(len(table.weight))))
    assert float(table_sample(model).norm()) > 5 * float(table.weight.norm()), "times the root of the width"


@pytest.mark.parametrize("attack", [*SOFT, LATENT])
def test_a_behaviour_without_a_target_is_named(target, attack):
    with pytest.raises(UserError, match="x has no target"):
        attack.run(target, [*CHATS, Chat("x", (Message("user", "Hm"),))], RESOURCES)


@pytest.mark.parametrize("attack", [*SOFT, LATENT])
def test_same_seed_same_result(target, attack):
    one, two = (attack.run(target, CHATS, RESOURCES) for _ in range(2))
    assert one == two
    if one[0].embeddings is not None:
        assert all(torch.equal(a.embeddings, b.embeddings) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_in_a_padded_batch_as_alone(family):
    model = FAMILIES[family]()
    descent = Descent(lambda slope: 0.05 * slope, steps=3)
    together = optimise(model, PROBLEMS, descent, batch=3)
    alone = optimise(model, PROBLEMS, descent, batch=1)
    for one, two in zip(together, alone, strict=True):
        assert one.losses == pytest.approx(two.losses, abs=2e-4)
        assert torch.allclose(one.best, two.best, atol=1e-3)


def test_target_rows_by_hand():
    rows = target_rows([[5, 6], [7, 8, 9]], [[10, 11], [12]], torch.device("cpu"))
    assert rows.ids.tolist() == [[5, 6, 10], [7, 8, 9]] and rows.mask.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert rows.kept.tolist() == [1, 2]
    assert rows.labels.tolist() == [[10, 11], [-100, 12]]
    assert rows.prompt_mask.tolist() == [[True, True, False], [True, True, True]]


def test_rows_stop_for_themselves():
    model = FAMILIES["llama"]()
    free = optimise(model, PROBLEMS, Descent(lambda slope: 0.05 * slope, 6), batch=3)
    limit = free[1].losses[3] + 1e-4
    found = optimise(model, PROBLEMS, Descent(lambda slope: 0.05 * slope, 6, stop_below=limit), batch=3)
    for one, two in zip(free, found, strict=True):
        stop = next((at for at, loss in enumerate(one.losses) if loss < limit), 6)
        assert two.losses == pytest.approx(one.losses[: stop + 1], abs=2e-4)


def test_batches_halve_when_memory_runs_out(monkeypatch):
    import rerouting.models.soft_prompt as module

    model, real, sizes = FAMILIES["llama"](), module._optimise, []
    expected = optimise(model, PROBLEMS, Descent(lambda slope: slope, 1), batch=1)

    def small(model, problems, descent, told):
        sizes.append(len(problems))
        if len(problems) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, problems, descent, told)

    monkeypatch.setattr(module, "_optimise", small)
    found = optimise(model, PROBLEMS, Descent(lambda slope: slope, 1), batch=3)
    assert sizes == [3, 1, 1, 1]
    assert [one.losses for one in found] == [one.losses for one in expected]


def test_every_step_is_told():
    said = []
    optimise(FAMILIES["llama"](), PROBLEMS, Descent(lambda slope: slope, 2), batch=3, told=said.append)
    assert [line.partition(", mean")[0] for line in said] == [
        f"step {at} of at most 2, 3 left" for at in (0, 1, 2)
    ]


def test_signed_steps_by_hand():
    model = FAMILIES["llama"]()
    (found,) = optimise(
        model, PROBLEMS[:1], Descent(lambda slope: 0.1 * torch.sign(slope), 1, keep=lambda found: True), 1
    )
    moved = found.kept[1] - found.kept[0]
    assert torch.allclose(moved[3:5].abs(), torch.full((2, 32), 0.1), atol=1e-6)
    assert not moved[:3].any() and not moved[5:].any()


def test_steps_of_soft_tokens_by_hand():
    slope = torch.tensor([[3.0, 4.0], [0.0, 0.1]])
    plain = Embedding(lr=0.5, max_step=None)._update(slope, norm=2.0)
    assert torch.allclose(plain, 2 * slope)
    clipped = Embedding(lr=0.5, max_step=0.5)._update(slope, norm=2.0)
    assert torch.allclose(clipped, torch.tensor([[0.6, 0.8], [0.0, 0.2]]))
    paper = Embedding(**Embedding.budgets["paper"])
    assert torch.allclose(paper._update(slope, norm=2.0), 1e-3 * slope)


def test_latent_perturbation_stays_in_the_ball_and_lowers_the_loss(target):
    prompts = [target.prompt_ids(attempt) for attempt in LATENT.run(target, CHATS, RESOURCES)]
    wanted = [target.tokenizer(chat.target, add_special_tokens=False)["input_ids"] for chat in CHATS]
    device = torch.device("cpu")
    pairs = list(zip(prompts, wanted, strict=True))
    found = LATENT._search(target.model, device, [1, 2], pairs)
    for ids, one in zip(prompts, found, strict=True):
        states = target.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer in (1, 2):
            norms = states[layer][0].norm(dim=1)
            radii = 0.3 * torch.minimum(norms, norms.median())
            assert one.deltas[layer].shape == (len(ids), 32)
            assert (one.deltas[layer].norm(dim=1) <= radii * (1 + 1e-4)).all()
            assert one.deltas[layer].any()
        assert min(one.losses) < one.losses[0]
    alone = LATENT._search(target.model, device, [1, 2], pairs[1:2])[0]
    assert alone.losses[:3] == pytest.approx(found[1].losses[:3], abs=1e-3)


def test_the_perturbation_is_kept_as_it_was_used(target, tmp_path):
    kept = tmp_path / "run"
    attempts = LATENT.run(target, CHATS[:2], replace(RESOURCES, folder=kept))
    assert len(list((kept / "perturbations").iterdir())) == 2
    for one in attempts:
        loaded = load_file(kept / one.trace["perturbation"])
        deltas = {int(layer): delta for layer, delta in loaded.items()}
        assert set(deltas) == {1, 2} and len(deltas[1]) == len(target.prompt_ids(one))
        with _kept(target.model, {tuple(target.prompt_ids(one)): deltas}):
            assert target.answer([replace(one, answer=None)]) == [one.answer]


def test_every_pass_of_the_latent_attack_is_counted(target):
    with target.counting() as cost:
        before = cost.forward_tokens
        LATENT._search(target.model, torch.device("cpu"), [1, 2], [([5, 6], [7]), ([5, 6, 8], [9])])
        assert cost.forward_tokens - before == (1 + LATENT.steps + 1) * 6


def test_answers_have_each_its_own_perturbation_in_a_padded_batch(target):
    attempts = LATENT.run(target, [*CHATS, CHATS[0]], RESOURCES)
    for chat, one in zip([*CHATS, CHATS[0]], attempts, strict=True):
        (alone,) = LATENT.run(target, [chat], RESOURCES)
        assert one.answer == alone.answer
    # by hand: the first token after perturbed states
    ids = target.prompt_ids(attempts[1])
    wanted = target.tokenizer(CHATS[1].target, add_special_tokens=False)["input_ids"]
    (found,) = LATENT._search(target.model, torch.device("cpu"), [1, 2], [(ids, wanted)])
    with (
        changed_layer(target.model, 1, lambda states: states + found.deltas[1]),
        changed_layer(target.model, 2, lambda states: states + found.deltas[2]),
    ):
        first = int(target.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
    with _kept(target.model, {tuple(ids): found.deltas}):
        mask = torch.ones(1, len(ids), dtype=torch.long)
        kept = target.model(input_ids=torch.tensor([ids]), attention_mask=mask).logits[0, -1].argmax()
    assert int(kept) == first


def test_hooks_are_gone_after_the_attack_and_after_an_error(target, monkeypatch):
    before = hooks(target.model)
    LATENT.run(target, CHATS, RESOURCES)
    assert hooks(target.model) == before

    def broken(attempts):
        raise RuntimeError("broken")

    monkeypatch.setattr(target, "answer", broken)
    with pytest.raises(RuntimeError, match="broken"):
        LATENT.run(target, CHATS, RESOURCES)
    assert hooks(target.model) == before


def test_layers_as_shares_and_indices():
    assert resolved_layers([0.25, 3, 0.01], 12) == [1, 3]
    for wrong in ([], [0], [13], [-1]):
        with pytest.raises(UserError, match="layers from 1 to 12"):
            resolved_layers(wrong, 12)
