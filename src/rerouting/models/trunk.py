"""The lower part of a causal language model: embeddings and the first decoder blocks, no LM head.

Layer indices are those of `rerouting.models.layers`. One difference from `output_hidden_states` of
transformers: there the last entry has gone through the final norm. Here every layer is the plain block
output, and the final norm's output is the entry `"norm"`, on request: the authors' code trains on a
truncated model, whose last hidden state is normed in just this way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from rerouting.core.errors import UserError
from rerouting.core.prompts import ImageReader
from rerouting.models.common_beginnings import Common
from rerouting.models.images import body_of
from rerouting.models.layers import block_of_layer, decoder_blocks, unwrapped
from rerouting.models.packing import GROUPED, VARLEN, Layout, branching

Key = int | str
Seen = Callable[[Key, Tensor], None]


def position_ids_of(attention_mask: Tensor) -> Tensor:
    """Number the real tokens of each row from 0, whatever side is padded.

    Args:
        attention_mask: 1 for real tokens, 0 for padding, (B, T).

    Returns:
        Long tensor (B, T); padding repeats its left neighbour's position, or 0.
    """
    return (attention_mask.long().cumsum(dim=1) - 1).clamp_min(0)


class Trunk(nn.Module):
    """Embeddings and the first decoder blocks of a model, which stays usable as a whole.

    Adapters may be injected before or after; gradients flow through the captured states.

    Args:
        model: causal language model, with or without PEFT wrapper.
        blocks: decoder blocks to run, at least 1; the highest layer that can be asked for.
        override: dotted path of the block list, as in `decoder_blocks`.

    Raises:
        UserError: the model has fewer blocks, or its block list cannot be found.
    """

    def __init__(self, model: nn.Module, blocks: int, override: str | None = None) -> None:
        super().__init__()
        self.model = model
        self._found = decoder_blocks(model, override)
        depth = len(self._found)
        if not 1 <= blocks <= depth:
            raise UserError(
                f"hidden layer {blocks} was asked for, but the model has {depth} layers",
                f"choose layers from 1 (the first block's output) to {depth}; 0 is the embedding",
            )
        self.blocks = blocks
        accepted = inspect.signature(self._found.owner.forward).parameters
        self._takes_positions = "position_ids" in accepted

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the frozen weights."""
        return self._found.owner.get_input_embeddings().weight.dtype  # type: ignore[operator, no-any-return]

    @property
    def reader(self) -> ImageReader | None:
        """What reads the model's pictures; None where it takes text alone."""
        return getattr(unwrapped(self.model), "image_reader", None)

    @property
    def all_blocks(self) -> nn.ModuleList:
        """Every decoder block of the model, those above the trunk too."""
        return self._found.blocks

    @contextmanager
    def truncated(
        self, blocks: int | None = None, below: Tensor | None = None, shared: int = 0
    ) -> Iterator[None]:
        """Within this context the model has only its first blocks; the full list always comes back.

        Args:
            blocks: how many; None for all of the trunk's.
            below: what the first `shared` blocks put out: they are not run, and this is passed on instead.
            shared: how many.
        """
        owner, attribute, full = self._found.owner, self._found.attribute, self._found.blocks
        kept = list(full)[: blocks or self.blocks]
        if below is not None and shared:
            kept[:shared] = [_Instead(block, below) for block in kept[:shared]]
        setattr(owner, attribute, nn.ModuleList(kept))
        try:
            yield
        finally:
            setattr(owner, attribute, full)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        layers: Sequence[int],
        *,
        with_final_norm: bool = False,
        packed: Layout | None = None,
        seen: Seen | None = None,
        below: Tensor | None = None,
        shared: int = 0,
        media: Mapping[str, Tensor] | None = None,
    ) -> dict[Key, Tensor]:
        """Run the trunk as far up as is needed, and return the hidden states asked for.

        Args:
            input_ids: (B, T), padded on either side; (1, N) when packed.
            attention_mask: 1 for real tokens, 0 for padding, (B, T); None when packed.
            layers: hidden layers to return, each from 0 to `blocks`.
            with_final_norm: also return the final norm of the top layer, under `"norm"`.
            packed: where the sequences lie in the one row; see `packs`.
            seen: given each state as soon as it is there, in ascending order; nothing is returned then.
            below: output of the lowest `shared` blocks on the same input, which are not run again.
            shared: how many blocks that is.
            media: pictures and what belongs to them (`models.images`), which then go through the vision tower; the
                family itself sees to positions and to attention among a picture's tokens.

        Returns:
            Hidden states (B, T, D) by layer; values at padding are meaningless.

        Raises:
            UserError: a layer is outside of the trunk.
        """
        states: dict[Key, Tensor] = {}
        kwargs: dict[str, Any] = {"use_cache": False, "attention_mask": attention_mask}
        if packed is not None:
            kwargs |= packed.inputs(input_ids.device)
        elif media:
            kwargs |= media
        elif self._takes_positions:
            assert attention_mask is not None
            kwargs["position_ids"] = position_ids_of(attention_mask)
        top = self.blocks if with_final_norm else max(1, *layers)
        with self._captured(layers, seen or states.__setitem__), self.truncated(top, below, shared):
            run = body_of(self.model) if media else self._found.owner
            output = run(input_ids=input_ids, **kwargs)
        if with_final_norm:
            (seen or states.__setitem__)("norm", output[0])
        return states

    @torch.no_grad()
    def packs(self, sequences: Sequence[Sequence[int]]) -> str:
        """Why these sequences cannot be packed with this model; "" if they can.

        They, and a few short ones of their tokens that branch, are run packed, a common beginning once, and one by one.
        What differs by more than rounding has crossed a border: a family with a recurrent state, say, or with attention
        of its own.
        """
        configs = {
            id(module.config): module.config for module in self.model.modules() if hasattr(module, "config")
        }
        used = {getattr(config, "_attn_implementation", None) for config in configs.values()}
        if not used & {GROUPED, VARLEN}:
            return f"its attention is {', '.join(sorted(map(str, used)))}: set model.attention to auto"
        if not self._takes_positions:
            return "the family takes no positions"
        trials = (sequences, branching(chain.from_iterable(sequences)))
        return next((why for some in trials if some and (why := self._leak(some))), "")

    def _leak(self, sequences: Sequence[Sequence[int]]) -> str:
        """How these sequences' states differ when they are packed; "" if they do not."""
        device, top = next(self.parameters()).device, self.blocks
        ids = torch.tensor([token for sequence in sequences for token in sequence], device=device)
        common = Common.of(sequences, [[False] * len(sequence) for sequence in sequences], device)
        layout = Layout.of([len(sequence) for sequence in sequences], device, common)
        row = (ids if common is None else ids[common.first])[None]
        try:
            states = self(row, None, [top], packed=layout)[top][0]
            together = (states if common is None else states[common.sources]).split(layout.lengths)
        except (TypeError, RuntimeError, ValueError) as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
        median, most = (1e-3, 1e-2) if states.dtype is torch.float32 else (0.1, 0.25)
        for sequence, packed in zip(sequences, together, strict=True):
            own = torch.tensor([list(sequence)], device=device)
            alone = self(own, torch.ones_like(own), [top])[top][0].float()
            apart = (packed.float() - alone).norm(dim=-1) / alone.norm(dim=-1).clamp_min(1e-6)
            middle, worst = float(apart.median()), float(apart.max())
            if not (middle <= median and worst <= most):  # a leak may reach one token alone
                return f"states differ from those of each sequence alone, by {middle:.1%} or, at most, {worst:.1%}"
        return ""

    @contextmanager
    def _captured(self, layers: Sequence[int], seen: Seen) -> Iterator[None]:
        """Hook the blocks so that `seen` is called during one forward pass."""
        with ExitStack() as hooks:
            for layer in layers:
                if not 0 <= layer <= self.blocks:
                    raise UserError(
                        f"hidden layer {layer} is outside of the trunk, which has layers 0 to {self.blocks}",
                        "build the trunk with at least as many blocks as the highest layer",
                    )
                handle = self._hook(layer, seen)
                hooks.callback(handle.remove)
            yield

    def _hook(self, layer: int, seen: Seen) -> Any:
        if layer == 0:

            def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                seen(0, args[0] if args else kwargs["hidden_states"])

            return self._found.blocks[0].register_forward_pre_hook(before, with_kwargs=True)

        def after(module: nn.Module, args: Any, output: Any) -> None:
            seen(layer, output if isinstance(output, torch.Tensor) else output[0])

        return self._found.blocks[block_of_layer(layer)].register_forward_hook(after)


class _Instead(nn.Module):
    """Stands for a block that need not run: passes on what is known to come out of it."""

    def __init__(self, block: nn.Module, output: Tensor) -> None:
        super().__init__()
        self.__dict__["block"], self.output = block, output

    def __getattr__(self, name: str) -> Any:
        # what the family reads off its blocks, such as their kind
        return getattr(self.__dict__["block"], name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The known output."""
        return self.output
