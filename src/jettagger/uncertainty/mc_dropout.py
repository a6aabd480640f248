"""MC dropout (arXiv:1506.02142): dropout stays on, and each pass is the prediction of one thinned network.

Shapes: T passes, B jets, K output columns, C classes, F features of a layer.

All jets, and all particles of a jet, share the masks of a pass. So a pass is a network, its ROC curve is one,
and a jet's result does not depend on the batch that it came in. Masks are keyed by (seed, pass, layer).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn

from jettagger.batch import Inputs, Packed
from jettagger.errors import JettaggerError
from jettagger.models.parts.dropout import Dropout, draw_mask, dropout_layers
from jettagger.models.parts.model import JetModel
from jettagger.randomness import torch_generator
from jettagger.uncertainty.decomposition import Accumulator, Decomposition, Floats
from jettagger.uncertainty.ensemble import probabilities_of

LARGEST_CHUNK = 1 << 24
"""Values of the widest layer that are computed at once, 64 MiB. Each chunk runs anew what stands before the first
dropout, which costs more than the cache gains into which smaller chunks would fit."""

FEW_JETS = 8
"""Up to here particles are made dense, which vmap batches well; packed rows save more on more jets."""


def mc_dropout(model: JetModel, inputs: Inputs, passes: int, seed: int) -> Decomposition:
    """Mean and spread over `passes` thinned networks; memory does not grow with their number."""
    accumulator = Accumulator()
    for raw_TBK in _chunks(model, inputs, passes, seed):
        accumulator.add_many(probabilities_of(raw_TBK, model.outputs))
    return accumulator.result()


def pass_probabilities(model: JetModel, inputs: Inputs, passes: int, seed: int) -> Iterator[Floats]:
    """Probabilities of each pass, (B, C), one after the other: each is one network's answer."""
    for raw_BK in pass_outputs(model, inputs, passes, seed):
        yield probabilities_of(raw_BK, model.outputs)


def pass_outputs(model: JetModel, inputs: Inputs, passes: int, seed: int) -> Iterator[Tensor]:
    """Output columns of each pass, (B, K), one after the other."""
    for raw_TBK in _chunks(model, inputs, passes, seed):
        yield from raw_TBK


def _chunks(model: JetModel, inputs: Inputs, passes: int, seed: int) -> Iterator[Tensor]:
    """Output columns of some passes at a time, (T, B, K).

    They are computed at once by `torch.vmap`, which runs what stands before the first dropout only once.
    Models with layers that vmap cannot batch (LSTM) run pass by pass; the log says so.
    """
    layers = {path: layer for path, layer in dropout_layers(model) if layer.p > 0}
    if not layers:
        raise JettaggerError("MC dropout needs dropout > 0: set model.dropout and train again")
    inputs = inputs.dense() if len(inputs) <= FEW_JETS else inputs
    step = passes_at_once(model, list(layers.values()), inputs)
    for first in range(0, passes, step):
        indices = range(first, min(first + step, passes))
        masks = {path: _masks(seed, indices, path, layer.p, layer.shape) for path, layer in layers.items()}
        yield _outputs(model, inputs, layers, masks)


def passes_at_once(model: JetModel, layers: list[Dropout], inputs: Inputs) -> int:
    """As many as keep the widest layer within LARGEST_CHUNK values; 1 where vmap cannot help."""
    if any(isinstance(module, nn.LSTM) for module in model.modules()):
        logging.getLogger(__name__).info("MC dropout: LSTM has no batching rule; passes run one by one")
        return 1
    packed = any(isinstance(particles, Packed) for particles in inputs.collections.values())
    if packed and any(layer.of == "particle" for layer in layers):
        return 1  # the batching rule of scatter_reduce is 70 times slower than the operation itself
    rows = {"jet": len(inputs), "particle": 1}
    for particles in inputs.collections.values():
        slots = len(particles.jet_N) if isinstance(particles, Packed) else particles.mask_BP.numel()
        rows["particle"] = max(rows["particle"], slots)
    widest = max(torch.Size(layer.shape).numel() * rows[layer.of] for layer in layers)
    return max(1, LARGEST_CHUNK // max(1, widest))


def _outputs(model: JetModel, inputs: Inputs, layers: dict[str, Dropout], masks: dict[str, Tensor]) -> Tensor:
    """(T, B, K) for masks (T, F) of each layer."""

    def forward(masks_of_pass: dict[str, Tensor]) -> Tensor:
        for path, layer in layers.items():
            layer.mask = masks_of_pass[path]
        return model(inputs)

    device = next(model.parameters()).device
    masks = {path: mask.to(device) for path, mask in masks.items()}
    with _only_dropout_varies(model, layers), torch.no_grad():
        if len(next(iter(masks.values()))) == 1:
            return forward({path: mask[0] for path, mask in masks.items()}).unsqueeze(0)
        raw_TBK: Tensor = torch.vmap(forward)(masks)
        return raw_TBK


@contextmanager
def _only_dropout_varies(model: JetModel, layers: dict[str, Dropout]) -> Iterator[None]:
    """Evaluation mode, so that batch normalisation keeps its statistics; both are put back afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for layer in layers.values():
            layer.mask = None
        for module in training:
            module.training = True


@lru_cache(maxsize=1024)
def _masks(seed: int, passes: range, layer: str, p: float, shape: tuple[int, ...]) -> Tensor:
    """(T, F): the same for every batch of a dataset, hence kept."""
    generators = (torch_generator(seed, "mc_dropout", index, layer) for index in passes)
    return torch.stack([draw_mask(shape, p, generator) for generator in generators])
