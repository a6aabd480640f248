"""ParticleNet: edge convolutions on the graph of nearest neighbours, which each layer draws anew (arXiv:1902.08570).

Shapes: B jets, P particle slots, (…) is N real particles of all jets for packed rows and (B, P) for dense slots,
K neighbours, F, G features, C classes. Padding is ignored: neighbours are real particles, and so are those that
batch normalisation and the mean run over.
"""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from jettagger.batch import Dense, Inputs, InputSpec, Particles
from jettagger.models.parts.collections import chosen_collection
from jettagger.models.parts.dropout import Dropout, Probability
from jettagger.models.parts.initialisation import Initialisation
from jettagger.models.parts.layers import BatchNorm, Head, followed_by
from jettagger.models.parts.model import JetModel, Reach
from jettagger.models.parts.neighbours import Neighbourhood, known_place
from jettagger.models.parts.normalisation import InputNormalisation
from jettagger.models.parts.particles import features_of, full_precision, normalise_particles
from jettagger.schema import Section

Positive = Annotated[int, Field(gt=0)]
Widths = Annotated[list[Positive], Field(min_length=1)]


class Config(Section):
    """The `model` section of a `particle_net`."""

    architecture: Literal["particle_net"] = "particle_net"
    """Edge convolutions between nearest neighbours: first in (eta, phi), then in the space of features."""
    collection: str | None = None
    """The particles; default: the only collection, or the only one with coordinates."""
    neighbours: Positive = 16
    """Of each particle. A jet with too few particles repeats them, nearest first."""
    edges: Annotated[list[Widths], Field(min_length=1)] = Field(
        default=[[64, 64, 64], [128, 128, 128], [256, 256, 256]]
    )
    """Features of an edge after each layer, one list for each edge convolution."""
    dense: list[Positive] = Field(default=[256])
    """Units of each hidden layer of the head."""
    dropout: Probability = 0.0
    """Before each layer of the head but the first; published: 0.1."""
    edge_dropout: Probability = 0.0
    """Before every other layer; published: none."""
    initialisation: Initialisation = "auto"
    """`auto` follows the activation."""


class EdgeLinear(nn.Linear):
    """A linear layer on an edge, W (x_i, x_j - x_i), taken apart: what i and what j contribute to it.

    With W = (U, V) that is (U - V) x_i + V x_j: computed once for each particle, and not for each edge.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(2 * inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, F) -> (…, 2 G): the contributions as i and as j."""
        own_GF, other_GF = self.weight.chunk(2, dim=1)
        return functional.linear(x, torch.cat([own_GF - other_GF, other_GF]))


class EdgeConvolution(nn.Module):
    """Layers on the edges from a particle to its neighbours, their mean, and the particle itself added.

    dropout -> linear -> batch norm -> ReLU, repeated, over all edges; mean over the neighbours; plus the input,
    linearly mapped and normalised where the widths differ; ReLU.
    """

    def __init__(self, inputs: int, widths: list[int], dropout: float) -> None:
        super().__init__()
        self.first_dropout = Dropout(dropout, (inputs,), of="particle")
        self.first = followed_by("relu", EdgeLinear(inputs, widths[0]))
        self.dropouts = nn.ModuleList(Dropout(dropout, (width,), of="particle") for width in widths[:-1])
        layers = [nn.Linear(*sizes, bias=False) for sizes in pairwise(widths)]
        self.layers = nn.ModuleList(followed_by("relu", layer) for layer in layers)
        self.norms = nn.ModuleList(map(BatchNorm, widths))
        self.shortcut: nn.Sequential | None = None
        if inputs != widths[-1]:
            dropped = Dropout(dropout, (inputs,), of="particle")
            self.shortcut = nn.Sequential(dropped, nn.Linear(inputs, widths[-1], bias=False))
            self.shortcut_norm = BatchNorm(widths[-1])

    def forward(self, particles: Particles, neighbours: Tensor) -> Particles:
        """F features -> G; `neighbours` (…, K): rows of the flattened particles."""
        x = features_of(particles)
        real_BP = particles.mask_BP if isinstance(particles, Dense) else None
        own, other = self.first(self.first_dropout(x)).chunk(2, dim=-1)
        edges = other.flatten(0, -2).index_select(0, neighbours.flatten())
        edges = edges.view(*neighbours.shape, other.shape[-1])
        edges = self._normed(0, edges + own.unsqueeze(-2), real_BP)
        for number, (dropout, layer) in enumerate(zip(self.dropouts, self.layers, strict=True), start=1):
            edges = self._normed(number, layer(dropout(edges)), real_BP)
        added = x
        if self.shortcut is not None:
            mapped = particles.with_features(self.shortcut(x))
            added = normalise_particles(self.shortcut_norm, mapped)
        y = functional.relu(added + edges.mean(-2))
        return particles.with_features(y if real_BP is None else y * real_BP.unsqueeze(-1))

    def _normed(self, number: int, edges: Tensor, real_BP: Tensor | None) -> Tensor:
        """Batch norm over the edges of real particles -> ReLU, (…, K, G)."""
        norm = self.norms[number]
        if real_BP is None:
            normed = norm(edges.flatten(0, -2))
        else:
            normed = norm(edges.flatten(1, 2), real_BP.repeat_interleave(edges.shape[2], dim=1))
        return functional.relu(normed).view(edges.shape)


class Model(JetModel):
    """normalise -> batch norm -> edge convolutions -> mean over particles -> dense head."""

    def __init__(self, config: Config, inputs: InputSpec, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.collection = chosen_collection(config.collection, inputs, "particle_net", coordinates=True)
        self.inputs = InputSpec(collections=(self.collection,))
        self.normalise = InputNormalisation(self.inputs)
        features = len(self.collection.features)
        self.input_norm = BatchNorm(features)
        sizes = [features, *(widths[-1] for widths in config.edges)]
        self.blocks = nn.ModuleList(
            EdgeConvolution(n_in, widths, config.edge_dropout)
            for n_in, widths in zip(sizes, config.edges, strict=False)
        )
        self.head = Head(
            sizes[-1],
            config.dense,
            outputs,
            activation="relu",
            norm="none",
            dropout=config.dropout,
            first_dropout=config.edge_dropout,
        )

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits, (B, C)."""
        particles = self.normalise(inputs).collections[self.collection.name]
        neighbourhood = Neighbourhood(particles)
        place = known_place(particles)
        particles = particles.with_features(normalise_particles(self.input_norm, particles))
        for block in self.blocks:
            particles = block(particles, neighbourhood.nearest(place, self.config.neighbours))
            place = features_of(particles)
        logits_BC: Tensor = self.head(full_precision(particles).mean())
        return logits_BC

    def fit_inputs(self, sample: Inputs) -> list[str]:
        """Measures shift and scale of every feature."""
        return self.normalise.fit(sample)

    def receptive_field(self) -> tuple[Reach, ...]:
        """Each edge convolution passes on what the neighbours have seen."""
        seen = (1 + self.config.neighbours) ** len(self.config.edges)
        return (Reach(min(seen, self.collection.length), f"{self.collection.name} (particles)"),)
