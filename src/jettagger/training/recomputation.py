"""Activation checkpointing: what layers gave is not kept for the gradient but computed again (arXiv:1604.06174).

The numbers are the same to the last bit: dropout masks are drawn again from where the generator stood, and the
running statistics of BatchNorm are those of the first pass.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jettagger.errors import JettaggerError
from jettagger.models.parts.dropout import dropout_layers
from jettagger.models.parts.layers import BatchNorm


@contextmanager
def recomputed(model: nn.Module) -> Iterator[None]:
    """While the body runs, each block of a chain of the model's layers is computed again for its gradient."""
    blocks = list(_blocks(model))
    if not blocks:
        raise JettaggerError(
            "training.activation_checkpointing: this network has no chain of layers to compute again; leave it out"
        )
    for block in blocks:
        block.forward = _twice(block)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost chains that have weights."""
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from (block for block in child if any(True for _ in block.parameters()))
        else:
            yield from _blocks(child)


def _twice(block: nn.Module) -> Callable[..., Any]:
    once = block.forward
    dropouts = [layer for _, layer in dropout_layers(block)]
    norms = [layer for layer in block.modules() if isinstance(layer, BatchNorm)]

    def forward(*given: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return once(*given)
        generator = next((layer.generator for layer in dropouts if layer.generator is not None), None)
        state = None if generator is None else generator.get_state()

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _again(generator, state, norms)

        return checkpoint(once, *given, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)

    return forward


@contextmanager
def _again(generator: torch.Generator | None, state: Tensor | None, norms: list[BatchNorm]) -> Iterator[None]:
    """The second pass: the same masks, and running statistics of its own that are thrown away."""
    now = None
    if generator is not None and state is not None:
        now = generator.get_state()
        generator.set_state(state)
    kept = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({name: None if x is None else x.clone() for name, x in norm._buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
        if generator is not None and now is not None:
            generator.set_state(now)
