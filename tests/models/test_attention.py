"""Grouped attention computes what eager attention computes, in every family, padded and while generating."""

import pytest
import torch

from rerouting.models.attention import grouped_attention
from rerouting.models.packing import GROUPED, register
from tests.models.tiny import FAMILIES


def test_by_hand_two_query_heads_share_a_key_head():
    query = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]])  # (1, 2, 1, 2)
    key = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])  # (1, 1, 2, 2)
    value = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    mixed, _ = grouped_attention(torch.nn.Identity(), query, key, value, None, scaling=1.0)
    e = torch.e
    expected = torch.tensor([[e / (e + 1), 1 / (e + 1)], [1 / (e**2 + 1), e**2 / (e**2 + 1)]])
    torch.testing.assert_close(mixed[0, 0], expected)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_equals_eager_attention(family):
    model = FAMILIES[family]()
    ids = torch.randint(3, 100, (3, 9), generator=torch.Generator().manual_seed(0))
    for mask in (
        torch.tensor([[1] * 9, [1] * 6 + [0] * 3, [1] * 4 + [0] * 5]),
        torch.ones(3, 9, dtype=torch.long),
    ):
        with torch.no_grad():
            model.set_attn_implementation("eager")
            eager = model(input_ids=ids, attention_mask=mask).logits
            model.set_attn_implementation(register(torch.device("cpu")))
            grouped = model(input_ids=ids, attention_mask=mask).logits
        real = mask.bool()
        torch.testing.assert_close(grouped[real], eager[real], rtol=1e-4, atol=1e-4)
    assert GROUPED in str(model.config._attn_implementation)


def test_gradients_equal_eager_attentions():
    gradients = []
    for name in ("eager", register(torch.device("cpu"))):
        model = FAMILIES["llama"]()
        model.set_attn_implementation(name)
        model.requires_grad_(True)
        model(input_ids=torch.arange(3, 15)[None]).logits.square().mean().backward()
        gradients.append(model.model.layers[0].self_attn.k_proj.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
