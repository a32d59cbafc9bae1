"""The place `stop`: found by the model's own blocks above, which then end the turn."""

from dataclasses import replace

import pytest
import torch

from rerouting.core.errors import UserError
from rerouting.data.formatting import Example
from rerouting.models.layers import decoder_blocks
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
    found, (chance,) = stopping(Trunk(model, 2), (2,), starts, examples(), END)
    assert 0 < chance < 1 and found.shape == starts.shape and not torch.allclose(found, starts)
    torch.testing.assert_close(found.norm(dim=1), starts.norm(dim=1))
    assert torch.equal(found, stopping(Trunk(model, 2), (2,), starts, examples(), END)[0]), "the same again"
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(item.grad is None for item in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_blocks_above_end_the_turn_there_and_on_the_way():
    model = FAMILIES["llama"]()
    starts = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    found, chances = stopping(Trunk(model, 2), (1, 2), starts, examples(), END)
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
    expected, chances = stopping(Trunk(model, 2), (2,), found["end"].state, examples(), END)
    assert torch.equal(found["stop"].state, expected), "every example once"
    assert found["stop"].ends == tuple(chances) and found["end"].ends == ()
    with pytest.raises(UserError, match="no retain response ends"):
        measure(("stop",), Trunk(model, 2), TrainingData(examples(), []), None, (2,), pad_id=0, size=2)


def test_long_prompts_keep_their_responses_in_sight_and_pictures_are_left_out():
    model, starts = FAMILIES["llama"](), torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    prompt = tuple(range(10, 60)) * 6
    long = Example(prompt + (5,) * (TOKENS + 9), 300, (False,) * 300 + (True,) * (TOKENS + 9), "long")
    cut = replace(long, ids=long.ids[: 300 + TOKENS], mask=long.mask[: 300 + TOKENS])
    pictured = replace(examples()[0], images=("a.png",))
    found = stopping(Trunk(model, 2), (2,), starts, [long, pictured], END)
    assert torch.equal(found[0], stopping(Trunk(model, 2), (2,), starts, [cut], END)[0])
    with pytest.raises(UserError, match=r"has a picture.*place: end, within: 10"):
        stopping(Trunk(model, 2), (2,), starts, [pictured], END)


def test_blocks_that_must_be_named_and_bfloat16():
    model, starts = (
        FAMILIES["llama"]().bfloat16(),
        torch.randn(1, 32, generator=torch.Generator().manual_seed(1)),
    )
    model.config.num_hidden_layers = 99  # no list is as long
    with pytest.raises(UserError, match="no module list"):
        decoder_blocks(model)
    found, (chance,) = stopping(Trunk(model, 2, "model.layers"), (2,), starts, examples(), END)
    assert found.dtype == torch.float32 and bool(found.isfinite().all()) and 0 < chance < 1
