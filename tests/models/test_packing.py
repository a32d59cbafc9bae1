"""Packed sequences give what each gives alone, in every family; where a family cannot be packed, it is said why."""

import pytest
import torch

from rerouting.models import packing
from rerouting.models.packing import Layout, register
from rerouting.models.trunk import Trunk
from tests.models.tiny import FAMILIES, HIDDEN

CPU = torch.device("cpu")
LENGTHS = (11, 7, 7, 3, 1)


def sequences(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 100, (length,), generator=generator).tolist() for length in lengths]


def packed_states(trunk, rows, layers):
    ids = torch.tensor([[token for row in rows for token in row]])
    return trunk(ids, None, layers, packed=Layout.of([len(row) for row in rows]))


def alone(trunk, row, layer):
    ids = torch.tensor([row])
    return trunk(ids, torch.ones_like(ids), [layer])[layer][0]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_packed_equals_alone(family):
    """The sliding windows of these models are 4 tokens: a border or window that is missed shows."""
    model = FAMILIES[family]()
    rows = sequences()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = [alone(Trunk(model, 3), row, 3) for row in rows]
        model.set_attn_implementation(register(CPU))
        trunk = Trunk(model, 3)
        assert trunk.packs(rows) == ""
        states = packed_states(trunk, rows, [0, 3])
    assert states[3].shape == states[0].shape == (1, sum(LENGTHS), HIDDEN)
    for ours, theirs in zip(states[3][0].split(LENGTHS), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("block", [4, 256, "flash"])
def test_gradients_are_those_of_each_sequence_alone(family, block, monkeypatch):
    if block != "flash":
        monkeypatch.setattr(packing, "BLOCK", block)
        monkeypatch.setattr(packing, "_flash_pays", lambda *_: False)
    gradients = []
    for together in (True, False):
        model = FAMILIES[family]()
        model.set_attn_implementation(register(CPU))
        weight = model.get_submodule("model.layers.0.self_attn.k_proj").weight.requires_grad_(True)
        trunk, rows = Trunk(model, 2), sequences()
        if together:
            packed_states(trunk, rows, [2])[2].square().sum().backward()
        else:
            for row in rows:
                alone(trunk, row, 2).square().sum().backward()
        gradients.append(weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("flash_from", [1, 100])
def test_flash_attention_of_cpus_gives_the_same(flash_from, monkeypatch):
    """Without gradient where AMX is to be had; with one for long sequences only."""
    monkeypatch.setattr(packing, "FLASH_FROM", flash_from)
    lengths = (60, 31, 30)
    draw = torch.Generator().manual_seed(0)
    states = [torch.randn(1, heads, sum(lengths), 16, generator=draw).bfloat16() for heads in (4, 2, 2)]
    module, layout = torch.nn.Module().eval(), Layout.of(lengths)
    found = []
    for amx in (False, True):
        monkeypatch.setattr(packing, "cpu_has_amx", lambda amx=amx: amx)
        own = [state.clone().requires_grad_(True) for state in states]
        with torch.no_grad():
            plain = packing.grouped(module, *states, None, layout, scaling=0.3)[0]
        mixed = packing.grouped(module, *own, None, layout, scaling=0.3)[0]
        mixed.float().square().sum().backward()
        found.append([plain, mixed.detach(), *(one.grad for one in own)])
    for grouped, flash in zip(*found, strict=True):
        assert grouped.shape == flash.shape
        assert (grouped - flash).float().norm() < 0.02 * grouped.float().norm()
    assert not torch.equal(found[0][0], found[1][0]), "the flash way was not taken"
    assert torch.equal(found[0][1], found[1][1]) is (flash_from == 100), (
        "short sequences keep the grouped way"
    )


@pytest.mark.parametrize(
    ("value_width", "window", "flash"), [(16, None, True), (16, 60, True), (16, 59, False), (8, None, False)]
)
def test_float32_takes_flash_attention_where_it_can(value_width, window, flash, monkeypatch):
    """And gets what products give. A window as long as the longest sequence hides nothing."""
    monkeypatch.setattr(packing, "BLOCK", 16)
    lengths = (60, 31, 30)
    draw = torch.Generator().manual_seed(0)
    sizes = ((4, 16), (2, 16), (2, value_width))
    states = [torch.randn(1, heads, sum(lengths), width, generator=draw) for heads, width in sizes]
    module, layout, found, choices = torch.nn.Module().eval(), Layout.of(lengths), [], []
    attend = packing.scaled_dot_product_attention

    def watched(*args, **options):
        choices.append(torch._fused_sdp_choice(*args, **options))
        return attend(*args, **options)

    monkeypatch.setattr(packing, "scaled_dot_product_attention", watched)
    for pays in (packing._flash_pays, lambda *_: False):
        monkeypatch.setattr(packing, "_flash_pays", pays)
        own = [state.clone().requires_grad_(True) for state in states]
        mixed = packing.grouped(module, *own, None, layout, scaling=0.3, sliding_window=window)[0]
        mixed.square().sum().backward()
        found.append([mixed.detach(), *(one.grad for one in own)])
    assert bool(choices) is flash
    assert set(choices) <= {torch.nn.attention.SDPBackend.FLASH_ATTENTION.value}
    for ours, products in zip(*found, strict=True):
        torch.testing.assert_close(ours, products, rtol=1e-4, atol=1e-5)


def test_neighbours_share_a_product_as_long_as_little_is_wasted(monkeypatch):
    monkeypatch.setattr(packing, "SLACK", 100)
    assert Layout.of([50, 50, 49, 20, 3]).groups == (3, 1, 1)
    monkeypatch.setattr(packing, "SLACK", 0)
    assert Layout.of([5, 5, 4]).groups == (2, 1)


def test_a_layout_by_hand():
    layout = Layout.of([3, 1, 2])
    assert layout.positions.tolist() == [[0, 1, 2, 0, 0, 1]]
    assert layout.offsets.tolist() == [0, 3, 4, 6] and layout.offsets.dtype is torch.int32
    assert layout.longest == 3


def test_models_that_cannot_be_packed_say_why():
    model = FAMILIES["llama"]()  # with eager attention
    assert "set model.attention to auto" in Trunk(model, 2).packs(sequences())

    model.set_attn_implementation(register(CPU))
    block = model.model.layers[0]
    plain = block.forward

    def remembers(hidden_states, *args, **kwargs):  # as a recurrent state does
        return plain(hidden_states + hidden_states.cumsum(dim=1).roll(1, 1), *args, **kwargs)

    block.forward = remembers
    assert "differ from" in Trunk(model, 2).packs(sequences())

    def looks_back(hidden_states, *args, **kwargs):  # by one token, in the last block of the trunk
        before = torch.cat([torch.zeros_like(hidden_states[:, :1]), hidden_states[:, :-1]], dim=1)
        return plain(hidden_states, *args, **kwargs) + before

    block.forward = looks_back
    long = sequences((40, 30, 30))
    assert "differ from" in Trunk(model, 1).packs(long), "a token behind each border is not the median"
    assert "0.0% or" in Trunk(model, 1).packs(long)

    def refuses(*args, **kwargs):
        raise TypeError("unexpected keyword argument 'packed'")

    block.forward = refuses
    assert "unexpected keyword" in Trunk(model, 2).packs(sequences())
