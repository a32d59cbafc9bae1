"""The place `stop`: found by the model's own blocks above, which then end the turn."""

import pytest
import torch

from rerouting.core.errors import UserError
from rerouting.data.formatting import Example
from rerouting.models.trunk import Trunk
from rerouting.training.loop import TrainingData
from rerouting.training.places import measure
from rerouting.training.stop_place import TOKENS, stopping
from tests.models.tiny import FAMILIES

END = 7


def examples():
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(10, 60, (length,), generator=draw).tolist() for length in (12, 9, 14, 11, 8)]
    return [
        Example(tuple(row), 4, (False,) * 4 + (True,) * (len(row) - 4), str(at))
        for at, row in enumerate(rows)
    ]


def probabilities(model, layer, place, share):
    """Of the end of turn, with states moved by hand: the block's output is replaced, its length kept."""
    found = []
    for one in examples():

        def moved(module, args, output):
            states = output[0] if isinstance(output, tuple) else output
            lengths = states.norm(dim=-1, keepdim=True)
            units = (1 - share) * states / lengths + share * place / place.norm()
            new = units / units.norm(dim=-1, keepdim=True) * lengths
            new[:, :4] = states[:, :4]
            return (new, *output[1:]) if isinstance(output, tuple) else new

        handle = model.model.layers[layer - 1].register_forward_hook(moved)
        with torch.no_grad():
            logits = model(torch.tensor([one.ids])).logits[0, 4:]
        handle.remove()
        found.append(logits.softmax(-1)[:, END])
    return torch.cat(found)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_learns_a_place_and_keeps_its_weights(family):
    model = FAMILIES[family]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    width = Trunk(model, 2)(torch.tensor([[5, 6]]), torch.ones(1, 2, dtype=torch.long), [2])[2].shape[-1]
    starts = 3 * torch.randn(1, width, generator=torch.Generator().manual_seed(1))
    found, (chance,) = stopping(model, (2,), starts, examples(), END)
    assert 0 < chance < 1 and found.shape == starts.shape and not torch.allclose(found, starts)
    torch.testing.assert_close(found.norm(dim=1), starts.norm(dim=1))
    assert torch.equal(found, stopping(model, (2,), starts, examples(), END)[0]), "the same again"
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(item.grad is None for item in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_blocks_above_end_the_turn_there_and_on_the_way():
    model = FAMILIES["llama"]()
    starts = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    found, chances = stopping(model, (1, 2), starts, examples(), END)
    for layer, start, place, chance in zip((1, 2), starts, found, chances, strict=True):
        assert chance == pytest.approx(float(probabilities(model, layer, place, 0.5).mean()), rel=1e-4)
        for share in (1.0, 0.7):
            before, after = (probabilities(model, layer, one, share) for one in (start, place))
            assert after.log().mean() > before.log().mean() + 0.02


def test_it_is_measured_like_the_others(monkeypatch):
    monkeypatch.setattr("rerouting.training.places.closing_ids", lambda _: [END])
    whole = Example((20, 21, 22, 23, END), 2, (True,) * 5, "whole")
    data = TrainingData([examples()[0]] * 2 + examples(), [whole])
    model = FAMILIES["llama"]()
    found = measure(("stop", "end"), Trunk(model, 2), data, None, (2,), pad_id=0, size=2)
    assert (
        (found["stop"].examples, found["stop"].tokens)
        == (found["end"].examples, found["end"].tokens)
        == (1, 1)
    )
    expected, chances = stopping(model, (2,), found["end"].mean, examples(), END)
    assert torch.equal(found["stop"].mean, expected), "every example once"
    assert found["stop"].ends == tuple(chances) and found["end"].ends == ()
    with pytest.raises(UserError, match="no retain response ends"):
        measure(("stop",), Trunk(model, 2), TrainingData(examples(), []), None, (2,), pad_id=0, size=2)


def test_responses_out_of_sight_are_an_error():
    late = Example(tuple(range(10, 60)) * 6, 280, (False,) * 280 + (True,) * 20, "late")
    assert late.ids[:TOKENS] != late.ids
    with pytest.raises(UserError, match=r"within 256 tokens.*place: end"):
        stopping(FAMILIES["llama"](), (2,), torch.randn(1, 32), [late], END)
