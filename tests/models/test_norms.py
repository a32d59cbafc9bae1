"""RMS norms by torch's kernel are the families' own."""

import pytest
import torch

from rerouting.models.norms import fused_norm, lean_norms
from tests.models.tiny import FAMILIES


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt2"])
def test_a_norm_is_the_familys(family):
    model, found = FAMILIES[family](), 0
    for module in model.modules():
        norm = fused_norm(module)
        if norm is None:
            assert "Norm" not in type(module).__name__ or family == "gpt2"  # GPT-2's are layer norms
            continue
        found += 1
        with torch.no_grad():
            module.weight.normal_()
        ours = torch.randn(3, 7, len(module.weight)).requires_grad_()
        theirs = ours.detach().clone().requires_grad_()
        torch.testing.assert_close(norm(ours), module(theirs), rtol=1e-5, atol=1e-6)
        (norm(ours) ** 3).sum().backward()
        (module(theirs) ** 3).sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    assert (found == 0) == (family == "gpt2")


def test_float32_weights_and_bfloat16_states_are_left_to_the_family():
    norm = FAMILIES["llama"]().model.norm
    x = torch.randn(3, len(norm.weight)).bfloat16()
    assert torch.equal(fused_norm(norm)(x), norm(x))


def test_a_cpu_keeps_its_norms():
    with lean_norms(FAMILIES["llama"]()) as count:
        assert count == 0


def test_what_only_looks_like_a_norm_is_left_alone():
    class Doubling(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.eps = torch.nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, x):
            return 2 * x

    class Gated(torch.nn.RMSNorm):
        def forward(self, x, gate=None):
            return super().forward(x)

    assert fused_norm(Doubling()) is None
    assert fused_norm(Gated(8, eps=1e-6)) is None
    assert fused_norm(torch.nn.LayerNorm(8)) is None
