"""Augmentation: jets are mirrored or mixed at random while a network is trained.

The strong and electromagnetic interactions treat a jet and its mirror image alike, so that a reflection gives
another jet of the same class. Each reflection flips the sign of all variables that are odd under it.

Shapes: B jets, F features, R reflections; (…) is N for packed rows, (B, P) for dense slots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from jettagger.batch import COORDINATES, Batch, Dense, Inputs, InputSpec, Packed, Rows
from jettagger.errors import JettaggerError, unknown_name

Reflections = Mapping[str, Sequence[str]]


class Mirror:
    """Applies each reflection to a random half of the jets of a batch.

    `reflections` maps a name to the odd variables: `<collection>.<feature>`, `jet.<feature>`, or
    `<collection>.coordinates.eta`. Raises JettaggerError for a variable that the model's inputs do not have.
    """

    def __init__(self, reflections: Reflections, spec: InputSpec) -> None:
        self.number = len(reflections)
        self._odd: dict[str, Tensor] = {}
        """For each block of variables: which of its columns each reflection flips, bool (R, F)."""
        columns = _columns(spec)
        for number, (name, variables) in enumerate(reflections.items()):
            for variable in variables:
                block, _, feature = variable.rpartition(".")
                known = [f"{block}.{feature}" for block, names in columns.items() for feature in names]
                known = [name for name in known if not name.endswith(".coordinates.pt")]  # never negative
                if variable not in known:
                    raise unknown_name("variable", variable, known, where=f"training.reflections.{name}")
                shape = (self.number, len(columns[block]))
                odd_RF = self._odd.setdefault(block, torch.zeros(shape, dtype=torch.bool))
                odd_RF[number, columns[block].index(feature)] = True

    def __call__(self, inputs: Inputs, generator: torch.Generator, rows: Rows | None = None) -> Inputs:
        """The inputs of some jets mirrored; which ones is drawn from `generator`.

        `rows` says which rows of a batch that ranks share they are: what is drawn for the batch is cut to them.
        """
        jets = len(inputs) if rows is None else rows.total
        flip_BR = torch.rand(jets, self.number, generator=generator, device=generator.device) < 0.5
        if rows is not None:
            flip_BR = flip_BR[rows.first : rows.first + rows.count]
        jet_BF = inputs.jet_BF
        if jet_BF is not None and "jet" in self._odd:
            jet_BF = jet_BF * self._signs("jet", flip_BR)
        collections = dict(inputs.collections)
        for name, particles in inputs.collections.items():
            collections[name] = self._mirrored(name, particles, flip_BR)
        return Inputs(jet_BF, collections)

    def _mirrored(self, name: str, particles: Packed | Dense, flip_BR: Tensor) -> Packed | Dense:
        if name in self._odd:
            sign = particles.spread(self._signs(name, flip_BR))
            x = particles.features_NF if isinstance(particles, Packed) else particles.features_BPF
            particles = particles.with_features(x * sign)
        if (block := f"{name}.coordinates") in self._odd:
            sign = particles.spread(self._signs(block, flip_BR))
            if isinstance(particles, Packed) and particles.coordinates_NK is not None:
                return replace(particles, coordinates_NK=particles.coordinates_NK * sign)
            if isinstance(particles, Dense) and particles.coordinates_BPK is not None:
                return replace(particles, coordinates_BPK=particles.coordinates_BPK * sign)
        return particles

    def _signs(self, block: str, flip_BR: Tensor) -> Tensor:
        """+1 or -1 for each jet and variable, (B, F): two reflections of one variable cancel."""
        odd_RF = self._odd[block].to(flip_BR.device)
        flips_BF = (flip_BR.unsqueeze(-1) & odd_RF).sum(1)
        return 1.0 - 2.0 * (flips_BF % 2).to(torch.float32)


def mixed(batch: Batch, alpha: float, generator: np.random.Generator) -> Batch:
    """Mixup (arXiv:1710.09412): each jet's variables are s·x + (1 - s)·x' with those of a random partner.

    s is drawn from Beta(alpha, alpha) for the batch. The loss is s·w·l(x, y) + (1 - s)·w'·l(x, y'): each truth
    enters with its own weight, so that this holds for any loss, and for targets that are unknown. A variable that
    one of the two lacks is missing. Particles cannot be mixed: a jet has no third particle halfway to another's.
    """
    assert not batch.inputs.collections, "only jet-level variables can be mixed"
    jet_BF = batch.inputs.jet_BF
    assert jet_BF is not None
    share = float(generator.beta(alpha, alpha))
    partner_B = torch.from_numpy(generator.permutation(len(batch))).to(jet_BF.device)
    its = batch.truth.each(lambda x: x[partner_B])
    return replace(
        batch,
        inputs=Inputs(share * jet_BF + (1 - share) * jet_BF[partner_B], {}),
        weights_B=share * batch.weights_B,
        partner=replace(its, weights_B=(1 - share) * its.weights_B),
    )


def check(reflections: Reflections, spec: InputSpec) -> None:
    """Raises JettaggerError for a reflection that flips nothing, or what the inputs do not have."""
    for name, variables in reflections.items():
        if not variables:
            raise JettaggerError(f"training.reflections.{name}: name the variables that change sign")
    Mirror(reflections, spec)


def _columns(spec: InputSpec) -> dict[str, list[str]]:
    columns = {"jet": [feature.name for feature in spec.jet]} if spec.jet else {}
    for collection in spec.collections:
        columns[collection.name] = [feature.name for feature in collection.features]
        if collection.coordinates:
            columns[f"{collection.name}.coordinates"] = list(COORDINATES)
    return columns
