"""`paper` mode against an independent, deliberately plain implementation of Algorithm 1 and the authors' code facts.

The plain one pads to a fixed length (prompts on the left, responses on the right), truncates the model by hand,
stacks every hidden state that transformers returns (the last one after the final norm), and masks with zeros.
"""

import copy
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from rerouting.core.config import load_config
from rerouting.core.recipes import recipe_path
from rerouting.data.formatting import Example
from rerouting.models.config import LoraConfig
from rerouting.models.lora import adapter_parameters, add_lora
from rerouting.models.low_rank import lean_adapters
from rerouting.models.packing import register
from rerouting.models.trunk import Trunk
from rerouting.training.config import RunConfig
from rerouting.training.objective import Objective
from tests.models.tiny import FAMILIES

PROMPT, RESPONSE = 6, 7
PAD = 0


def examples(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    out = []
    for number, (prompt, response) in enumerate(lengths):
        ids = torch.randint(3, 100, (prompt + response,), generator=generator).tolist()
        out.append(Example(tuple(ids), prompt, (True,) * len(ids), str(number)))
    return out


HARMFUL = examples([(6, 7), (3, 7), (5, 2), (2, 4)], 1)
RETAIN = examples([(4, 5), (6, 7), (2, 1), (3, 3)], 2)


def padded(batch):
    """Prompt left-padded to PROMPT, response right-padded to RESPONSE, as in the authors' data set."""
    ids = torch.full((len(batch), PROMPT + RESPONSE), PAD)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(batch):
        start = PROMPT - example.n_prompt
        ids[row, start : start + len(example.ids)] = torch.tensor(example.ids)
        mask[row, start : start + len(example.ids)] = 1
    return ids, mask


def plain_losses(model, targets):
    """Rerouting and retain loss of the truncated PEFT model, with all padding in the tensors."""
    harmful_ids, harmful_mask = padded(HARMFUL)
    retain_ids, retain_mask = padded(RETAIN)

    def hidden(ids, mask):
        return model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states

    with torch.no_grad(), model.disable_adapter():
        old_retain = torch.stack(hidden(retain_ids, retain_mask)) * retain_mask[None, :, :, None]
        every = hidden(harmful_ids, harmful_mask)
        old_harmful = torch.stack([every[layer] for layer in targets])
    new_retain = torch.stack(hidden(retain_ids, retain_mask)) * retain_mask[None, :, :, None]
    every = hidden(harmful_ids, harmful_mask)
    new_harmful = torch.stack([every[layer] for layer in targets])
    retain = torch.norm(new_retain - old_retain, dim=-1, p=2, dtype=torch.float).nanmean()
    unit_new = new_harmful / new_harmful.norm(dim=-1, keepdim=True)
    unit_old = old_harmful / old_harmful.norm(dim=-1, keepdim=True)
    mask = harmful_mask[None].expand(len(targets), -1, -1)
    products = (unit_new * unit_old).sum(-1) * mask
    return torch.relu(products).sum() / mask.sum(), retain


@pytest.mark.parametrize("recipe", ["llama-3-8b", "mistral-7b"])
@pytest.mark.parametrize(("targets", "blocks"), [((1,), 2), ((1, 2), 3)])
@pytest.mark.parametrize("lean", [False, True], ids=["padded", "packed and lean"])
def test_paper_mode_is_algorithm_1(recipe, targets, blocks, lean):
    config = load_config(RunConfig, Path(recipe_path(recipe)))
    config.losses.target_layers = targets
    family = "llama" if "llama" in recipe else "mistral"
    torch.manual_seed(0)
    base = FAMILIES[family]()
    lora = LoraConfig(rank=4, alpha=4.0, dropout=0.0, init_b_std=0.05)
    model = add_lora(base, lora, blocks - 1, seed=5)

    step, steps = 37, config.training.steps
    alpha = config.losses.schedule.options["alpha"]
    reroute_weight, retain_weight = alpha * (1 - step / (2 * steps)), alpha * step / (2 * steps)

    objective = Objective(
        Trunk(model, blocks),
        config.losses,
        pad_id=PAD,
        padded_length=PROMPT + RESPONSE,
        micro_batch=3,
        packed=lean,
    )
    with ExitStack() as stack:
        if lean:
            model.set_attn_implementation(register(torch.device("cpu")))
            assert stack.enter_context(lean_adapters(model)) == 7 * blocks
        harmful = objective.reroute(HARMFUL, reroute_weight, 0, lambda value: value.backward())
        retain = objective.retain(RETAIN, retain_weight, lambda value: value.backward())
    model.set_attn_implementation("eager")
    ours = {name: item.grad.clone() for name, item in adapter_parameters(model).items()}

    model.zero_grad()
    plain = copy.deepcopy(model)
    inner = plain.get_base_model().model
    inner.layers = inner.layers[:blocks]
    inner.config.num_hidden_layers = blocks
    plain_reroute, plain_retain = plain_losses(plain, config.losses.target_layers)
    (reroute_weight * plain_reroute + retain_weight * plain_retain).backward()
    theirs = {name: item.grad for name, item in adapter_parameters(plain).items()}

    assert harmful.loss == pytest.approx(plain_reroute.item(), rel=1e-5)
    assert retain.loss == pytest.approx(plain_retain.item(), rel=1e-5)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 2 * 7 * blocks
    for name, gradient in ours.items():
        assert gradient.norm() > 0, name
        difference = (gradient - theirs[name]).norm() / theirs[name].norm()
        assert difference < 1e-4, (name, difference)
