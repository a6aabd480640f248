"""A batch in parts, which pass through the network one after the other to save memory.

Shapes: B jets, N particles of all jets.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn

from jettagger.batch import Batch, Inputs, Packed, Part, Particles, Rows
from jettagger.models.parts.dropout import dropout_layers


class Cut(NamedTuple):
    """Which jets of a batch are a part of it, and which rows their particles are in each packed collection."""

    jets: slice
    particles: Mapping[str, slice]


def cuts(inputs: Inputs, sizes: list[int]) -> list[Cut]:
    """Parts of so many jets, one after the other. For inputs on a GPU this waits: ask before they go there."""
    edges = [0, *accumulate(sizes)]
    rows: dict[str, list[int]] = {}
    for name, particles in inputs.collections.items():
        if isinstance(particles, Packed):
            ends_B = [0, *particles.lengths_B.cumsum(0).tolist()]
            rows[name] = [ends_B[edge] for edge in edges]
    return [
        Cut(slice(low, high), {name: slice(at[n], at[n + 1]) for name, at in rows.items()})
        for n, (low, high) in enumerate(pairwise(edges))
    ]


def even_sizes(jets: int, parts: int) -> list[int]:
    """The jets of each part, as even as can be; no more parts than jets."""
    parts = min(parts, jets)
    return [jets * (n + 1) // parts - jets * n // parts for n in range(parts)]


def part_of(batch: Batch, cut: Cut) -> Batch:
    """A part of a batch."""
    changed: dict[str, Any] = {"inputs": _inputs(batch.inputs, cut), "part": _place(batch, cut)}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = value[cut.jets]
    if batch.partner is not None:
        changed["partner"] = batch.partner.each(lambda x: x[cut.jets])
    return replace(batch, **changed)


def _place(batch: Batch, cut: Cut) -> Part:
    """Where a part lies in the batch, or in the one of which this rank has `batch`."""
    whole = batch.part
    jets = Rows(0, len(batch), len(batch)) if whole is None else whole.jets
    particles = {}
    for name, rows in cut.particles.items():
        packed = batch.inputs.collections[name]
        assert isinstance(packed, Packed)
        number = len(packed.features_NF)
        outer = Rows(0, number, number) if whole is None else whole.particles[name]
        particles[name] = _within(outer, rows)
    return Part(_within(jets, cut.jets), particles)


def _within(outer: Rows, rows: slice) -> Rows:
    return Rows(outer.first + rows.start, rows.stop - rows.start, outer.total)


def same_masks(model: nn.Module) -> Callable[[], None]:
    """What takes dropout back to where it is now: each part draws the masks of the whole batch, and uses its own."""
    generators = (layer.generator for _, layer in dropout_layers(model) if layer.generator is not None)
    generator = next(generators, None)
    if generator is None:
        return lambda: None
    state = generator.get_state()

    def again() -> None:
        generator.set_state(state)

    return again


def _inputs(inputs: Inputs, cut: Cut) -> Inputs:
    def particles(name: str, x: Particles) -> Particles:
        if isinstance(x, Packed):
            rows = cut.particles[name]
            coordinates_NK = None if x.coordinates_NK is None else x.coordinates_NK[rows]
            return Packed(
                x.features_NF[rows], x.lengths_B[cut.jets], coordinates_NK, x.jet_N[rows] - cut.jets.start
            )
        coordinates_BPK = None if x.coordinates_BPK is None else x.coordinates_BPK[cut.jets]
        return replace(
            x,
            features_BPF=x.features_BPF[cut.jets],
            mask_BP=x.mask_BP[cut.jets],
            coordinates_BPK=coordinates_BPK,
        )

    jet_BF = None if inputs.jet_BF is None else inputs.jet_BF[cut.jets]
    return Inputs(jet_BF, {name: particles(name, x) for name, x in inputs.collections.items()})
