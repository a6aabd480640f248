"""What a model is made of: layers, shapes, parameters, floating-point operations, receptive field."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jettagger.batch import Dense, Inputs
from jettagger.models.parts.model import JetModel, Reach

Output = Tensor | tuple[Tensor, ...]


class LayerRow(NamedTuple):
    """One layer that has parameters."""

    name: str
    kind: str
    shape: tuple[int, ...]
    """Of the output for one jet."""
    parameters: int
    flops: int
    """For one jet; a multiplication and an addition count as two; only weight layers are counted."""


class ModelSummary(NamedTuple):
    """All layers in the order in which a jet meets them."""

    layers: tuple[LayerRow, ...]
    parameters: int
    flops: int
    particles: dict[str, int]
    """Particles of each collection that the shapes and operations are for."""
    receptive_field: tuple[Reach, ...]

    def __str__(self) -> str:
        head = f"{'layer':<44} {'kind':<11} {'output':>16} {'parameters':>11} {'FLOPs/jet':>13}"
        lines = [
            f"{row.name:<44} {row.kind:<11} {'x'.join(map(str, row.shape)):>16} "
            f"{row.parameters:>11,} {row.flops:>13,}"
            for row in self.layers
        ]
        counts = ", ".join(f"{count} {name}" for name, count in self.particles.items())
        total = f"{self.parameters:,} parameters, {self.flops:,} FLOPs per jet"
        total += f" with {counts}" if counts else ""
        reaches = ", ".join(f"{reach.size:.3g} {reach.unit}" for reach in self.receptive_field)
        return "\n".join([head, *lines, total, f"receptive field: {reaches or 'all inputs'}"])


def summarise(model: JetModel, particles: Mapping[str, int] | None = None) -> ModelSummary:
    """Sends one jet through the model; `particles`: how many of each collection (default: its length)."""
    counts = {c.name: (particles or {}).get(c.name, c.length) for c in model.inputs.collections}
    rows: list[LayerRow] = []
    handles = [
        module.register_forward_hook(_recorder(name, rows))
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(_one_jet(model, counts))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return ModelSummary(
        tuple(rows),
        sum(parameter.numel() for parameter in model.parameters()),
        sum(row.flops for row in rows),
        counts,
        model.receptive_field(),
    )


def _one_jet(model: JetModel, counts: Mapping[str, int]) -> Inputs:
    like = next(model.parameters())
    collections = {
        c.name: Dense(
            like.new_zeros(1, counts[c.name], len(c.features)),
            torch.ones(1, counts[c.name], dtype=torch.bool, device=like.device),
            like.new_ones(1, counts[c.name], 3) if c.coordinates else None,
        )
        for c in model.inputs.collections
    }
    return Inputs(like.new_zeros(1, len(model.inputs.jet)), collections)


def _recorder(name: str, rows: list[LayerRow]) -> Callable[[nn.Module, object, Output], None]:
    def record(module: nn.Module, _: object, output: Output) -> None:
        shape = tuple((output if isinstance(output, Tensor) else output[0]).shape[1:])
        own = list(module.parameters(recurse=False))
        weights = sum(p.numel() for p in own if p.dim() > 1)
        # A convolution uses its weights once a pixel, the others once a particle (or jet).
        uses = shape[1:] if isinstance(module, nn.Conv2d) else shape[:-1]
        flops = 2 * weights * int(torch.Size(uses).numel())
        rows.append(LayerRow(name, type(module).__name__, shape, sum(p.numel() for p in own), flops))

    return record
