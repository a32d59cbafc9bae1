"""Two tiny random models as base and rerouted, for tests of conversations."""

import copy

import torch

from rerouting.pipeline.conversation import Pair
from tests.attacks.tiny_target import tiny_target
from tests.data.tokenizers_of_families import CHATML, tiny

LAYERS = (1, 2)


def tiny_pair(change=0.1, context=None, ends=True):
    """A pair whose second model has the first's weights with noise of a given standard deviation.

    With `ends` false no token ends an answer.
    """
    base = tiny_target(tiny(CHATML)).loaded
    if context is not None:
        base.model.config.max_position_embeddings = context
    if not ends:
        base.model.generation_config.eos_token_id = None
    rerouted = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(1)
    for parameter in rerouted.model.parameters():
        parameter += change * torch.randn(parameter.shape, generator=generator)
    return Pair({"base": base, "rerouted": rerouted}, LAYERS, name="tiny")
