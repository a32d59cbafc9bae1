"""Lean norms compute what the families' own compute; what is no RMSNorm is left alone."""

import pytest
import torch

from rerouting.models.rms_norm import lean_norms
from tests.models.tiny import FAMILIES

IDS = torch.arange(3, 15)[None]
NORMS = {"llama": 7, "qwen3": 13, "gpt2": 0}


def spread(model):
    """Norm weights that are all different: those of a fresh model are all one."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if "RMSNorm" in type(module).__name__:
            module.weight.data = torch.rand(module.weight.shape, generator=generator) + 0.2
    return model


def run(model):
    embedding = model.get_input_embeddings()
    inputs = embedding(IDS).detach().requires_grad_(True)
    output = model(inputs_embeds=inputs).logits
    output.square().mean().backward()
    return output.detach(), inputs.grad


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_states_and_gradients_are_the_familys_own(family):
    model = spread(FAMILIES[family]())
    if "multimodal" in type(model).__name__.lower() or "ForConditionalGeneration" in type(model).__name__:
        pytest.skip("takes other inputs")
    expected, gradient = run(model)
    with lean_norms(model) as count:
        output, ours = run(model)
    assert count == NORMS.get(family, count)
    assert (count > 0) == any("RMSNorm" in type(module).__name__ for module in model.modules())
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours, gradient, rtol=1e-3, atol=1e-5)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_norm_of_another_kind_is_left_alone():
    class OddRMSNorm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.eps = torch.nn.Parameter(torch.rand(8), requires_grad=False), 1e-6

        def forward(self, x):
            return 2 * self.weight * x

    with lean_norms(torch.nn.Sequential(OddRMSNorm())) as count:
        assert count == 0
