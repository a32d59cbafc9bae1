"""What sequences begin with in common runs once, and nothing else changes."""

from itertools import chain

import pytest
import torch

from rerouting.models import packing
from rerouting.models.common_beginnings import Common
from rerouting.models.packing import Layout, register
from rerouting.models.trunk import Trunk
from tests.models.tiny import FAMILIES

CPU = torch.device("cpu")
BEGINNING = [5, 17, 80, 4, 33, 61]
ROWS = [
    [*BEGINNING, 9, 8, 7, 6, 5],
    [*BEGINNING, 9, 8, 3],
    [*BEGINNING[:4], 40, 41, 42],
    [50, 51],
    [*BEGINNING, 12],
]
RUN = 11 + 1 + 3 + 2 + 1
"""How many of their tokens have to run."""


def common(rows=ROWS, counts=None):
    counts = counts or [[False] * len(row) for row in rows]
    return Common.of(rows, counts, CPU)


def states(trunk, rows, shared, layer):
    flat = torch.tensor([*chain.from_iterable(rows)])
    layout = Layout.of([len(row) for row in rows], CPU, shared)
    ids = flat if shared is None else flat[shared.first]
    return trunk(ids[None], None, [layer], packed=layout)[layer]


def test_tokens_run_once_where_all_before_them_are_the_same():
    found = common([[1, 2, 3], [1, 2, 4], [2, 2, 3]])
    assert found.sources.tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 6]
    assert found.first.tolist() == [0, 1, 2, 5, 6, 7, 8]
    assert found.again.tolist() == [3, 4]


def test_what_counts_for_the_loss_is_everybodys_own():
    yes, no = True, False
    found = common(
        [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]], [[no, no, yes, no], [no, no, no, no], [no, yes, no, no]]
    )
    assert found.sources.tolist() == [0, 1, 2, 3, 0, 1, 4, 5, 0, 6, 7, 8]


def test_little_that_is_common_is_left_alone():
    assert common([[1, *range(10, 40)], [1, *range(50, 80)]]) is None
    assert common([[1, 2], [3, 4]]) is None


def test_positions_and_borders_are_those_of_whole_sequences():
    layout = Layout.of([3, 3], CPU, common([[1, 2, 3], [1, 2, 4]]))
    assert layout.positions.tolist() == [[0, 1, 2, 2]]
    assert layout.offsets.tolist() == [0, 3, 6] and layout.lengths == (3, 3)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_states_are_those_of_each_sequence_alone(family):
    """The sliding windows of these models are 4 tokens, shorter than what is common."""
    model, shared = FAMILIES[family](), common()
    assert len(shared.first) == RUN
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = []
        for row in ROWS:
            ids = torch.tensor([row])
            expected.append(Trunk(model, 3)(ids, torch.ones_like(ids), [3])[3][0])
        model.set_attn_implementation(register(CPU))
        found = states(Trunk(model, 3), ROWS, shared, 3)
    assert found.shape[1] == RUN
    torch.testing.assert_close(found[0][shared.sources], torch.cat(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("flash", [True, False])
def test_gradients_are_the_same(family, flash, monkeypatch):
    """Of a loss on the tokens that are not common: what they say about the others comes back through attention."""
    if not flash:
        monkeypatch.setattr(packing, "_flash_pays", lambda *_: False)
    own = torch.tensor([at >= min(len(row) - 1, 6) for row in ROWS for at in range(len(row))])
    gradients = []
    for shared in (common(), None):
        model = FAMILIES[family]()
        model.set_attn_implementation(register(CPU))
        weights = [model.get_submodule(f"model.layers.0.self_attn.{name}_proj").weight for name in "qkv"]
        for weight in weights:
            weight.requires_grad_(True)
        found = states(Trunk(model, 2), ROWS, shared, 2)[0]
        whole = found if shared is None else found[shared.sources]
        whole[own].square().sum().backward()
        gradients.append([weight.grad for weight in weights])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_gradients_in_bfloat16_are_added_up_in_float32():
    rows = [[1, at] for at in range(2, 302)]
    shared = common(rows)
    leaf = torch.zeros(len(shared.first), 1, 1, dtype=torch.bfloat16, requires_grad=True)
    shared.whole(leaf).sum().backward()
    assert leaf.grad[0] == 300, "one at a time, bfloat16 would not count beyond 256"
