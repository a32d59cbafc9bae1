"""Gated units that keep less: the same outputs and gradients to the bit, in every family that has them."""

import copy

import pytest
import torch
import transformers
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from rerouting.models.gates import lean_gates


def llama(**options):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        **options,
    )
    return transformers.LlamaForCausalLM(config)


def kept_by(model, ids):
    """Elements of different storages that one forward pass keeps for the backward pass, and what came out."""
    storages = {}

    def watch(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(watch, lambda tensor: tensor):
        out = model(ids).logits
    return sum(storages.values()), out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("act", ["silu", "gelu_pytorch_tanh", "relu2"])
def test_same_gradients_to_the_bit_and_less_kept(dtype, act):
    plain = llama(hidden_act=act).to(dtype)
    lean = copy.deepcopy(plain)
    ids = torch.arange(40)[None]
    most, expected = kept_by(plain, ids)
    with lean_gates(lean) as count:
        assert count == 2
        less, found = kept_by(lean, ids)
        assert torch.equal(found, expected)
        found.float().square().sum().backward()
    expected.float().square().sum().backward()
    for (name, own), other in zip(lean.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(own.grad, other.grad), name
    assert most - less >= 2 * 40 * 96 * expected.element_size()
    assert not any("forward" in vars(module) for module in lean.modules())


@pytest.mark.parametrize("family", ["Qwen2", "Mistral", "Gemma3", "Qwen3", "Olmo2"])
def test_families_by_structure(family):
    config = getattr(transformers, f"{family}Config" if family != "Gemma3" else "Gemma3TextConfig")(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with lean_gates(model) as count:
        assert count == 2


class Odd(nn.Module):
    """The right names, and a forward of its own."""

    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(4, 4) for _ in range(3))
        self.act_fn = nn.SiLU()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.down_proj(self.act_fn(self.up_proj(x)) * self.gate_proj(x))


def test_what_only_looks_like_one_is_left_alone_and_its_mode_too():
    model = nn.Sequential(Odd(), nn.Linear(4, 4))
    model[0].drop.eval()
    with lean_gates(model) as count:
        assert count == 0 and "forward" not in vars(model[0])
    assert model[0].training and not model[0].drop.training
