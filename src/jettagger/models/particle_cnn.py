"""1x1 convolutions over each collection of particles, a summary of each, dense layers: the DeepJet family.

Shapes: B jets, F features, G features of a summary, C classes. DeepJet: arXiv:2008.10519; with a pooled
summary this is a particle-flow network (arXiv:1810.05165).
"""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jettagger.batch import CollectionInput, Inputs, InputSpec, Packed, Particles
from jettagger.errors import JettaggerError, unknown_name
from jettagger.models.parts.dropout import Probability
from jettagger.models.parts.initialisation import Initialisation
from jettagger.models.parts.layers import Activation, Head, Norm, norm_layer
from jettagger.models.parts.model import JetModel, Reach
from jettagger.models.parts.normalisation import InputNormalisation
from jettagger.models.parts.particles import (
    Context,
    LastState,
    ParticleBlock,
    Pool,
    Pooling,
    normalise_particles,
)
from jettagger.models.parts.subjets import Subjets
from jettagger.schema import Section

Positive = Annotated[int, Field(gt=0)]


class Recurrent(Section):
    """Reads the particles one after the other."""

    lstm: Positive
    """Size of the state; its last value, after the hardest particle, is the summary."""


Summary = Annotated[list[Pooling], Field(min_length=1)] | Recurrent

MEAN_AND_MAX: list[Pooling] = ["mean", "max"]


class SubjetsSection(Section):
    """Tells each particle where it stands among the hardest subjets: k-means with pT weights, as in
    N-subjettiness (arXiv:1108.2701). Needs the collection's `coordinates`."""

    number: Annotated[int, Field(ge=1, le=8)] = 3
    """Subjets: the prongs that are looked for."""
    signed: list[str] = Field(default=[])
    """Features given once more with the sign of the particle's d_phi to its subjet, such as d0 / sigma."""
    radius: Annotated[float, Field(gt=0)] = 0.8
    """Of the jets; distances are measured in it."""


class Branch(Section):
    """What is special about one collection; what is left out is as in the `model` section."""

    widths: Annotated[list[Positive], Field(min_length=1)] | None = None
    """Features of each particle after each 1x1 convolution."""
    summary: Summary | None = None
    """How particles become a jet: any of mean, max, sum, pt, attention side by side, or {lstm: size}."""
    context: list[Pooling] | None = None
    """Poolings of the jet that each block after the first tells its particles about; [] for none."""
    subjets: SubjetsSection | None = None
    """Where particles stand among the jet's subjets."""


class DropoutRates(Section):
    """A rate for each part."""

    inputs: Probability = 0.0
    """Before the first convolution: particle features are dropped."""
    particles: Probability = 0.0
    """Before the other convolutions and the summary's own weights."""
    dense: Probability = 0.0
    """Before each layer of the dense head."""


class Config(Section):
    """The `model` section of a `particle_cnn`."""

    architecture: Literal["particle_cnn"] = "particle_cnn"
    """1x1 convolutions over particles."""
    widths: Annotated[list[Positive], Field(min_length=1)] = Field(default=[128, 128])
    """Features of each particle after each 1x1 convolution."""
    summary: Summary = Field(default=MEAN_AND_MAX)
    """How particles become a jet: any of mean, max, sum, pt, attention side by side, or {lstm: size}."""
    context: list[Pooling] = Field(default=[])
    """Poolings of the jet that each block after the first tells its particles about; [] for none."""
    subjets: SubjetsSection | None = None
    """Where particles stand among the jet's subjets; null: they are not told."""
    collections: dict[str, Branch] = Field(default={})
    """Collections that differ from the above, by name."""
    heads: Positive = 4
    """Of attention, each over its share of a width."""
    residual: bool = False
    """Adds a convolution's input to its output where the widths are equal."""
    jet_features: bool = True
    """Joins the jet-level features, if the config has any, before the dense head."""
    dense: list[Positive] = Field(default=[128, 128])
    """Units of each hidden layer of the head."""
    activation: Activation = "relu"
    """Of all hidden layers."""
    norm: Norm = "none"
    """Normalisation before each layer but the first and after the summaries: batch, layer or none."""
    input_batch_norm: bool = False
    """Batch normalisation of the inputs on top of shift and scale, as DeepJet has it."""
    dropout: Probability | DropoutRates = 0.0
    """A number: before every layer but the first; or {inputs, particles, dense}."""
    initialisation: Initialisation = "auto"
    """`auto` follows the activation."""

    def branch(self, collection: str) -> Branch:
        """The settings of a collection, complete."""
        given = self.collections.get(collection, Branch())
        return Branch(
            widths=self.widths if given.widths is None else given.widths,
            summary=self.summary if given.summary is None else given.summary,
            context=self.context if given.context is None else given.context,
            subjets=self.subjets if given.subjets is None else given.subjets,
        )

    def rates(self) -> DropoutRates:
        """Dropout, part by part."""
        if isinstance(self.dropout, DropoutRates):
            return self.dropout
        return DropoutRates(particles=self.dropout, dense=self.dropout)


class CollectionBranch(nn.Module):
    """One collection: [subjets ->] convolutions -> summary -> norm, particles -> (B, G)."""

    def __init__(self, config: Config, collection: CollectionInput) -> None:
        super().__init__()
        branch, rates = config.branch(collection.name), config.rates()
        assert branch.widths is not None
        self.subjets = None
        if branch.subjets is not None:
            names = [feature.name for feature in collection.features]
            signed = tuple(names.index(name) for name in branch.subjets.signed)
            self.subjets = Subjets(branch.subjets.number, signed, branch.subjets.radius)
        appended = self.subjets.size if self.subjets is not None else 0
        sizes = [len(collection.features) + appended, *branch.widths]
        self.input_norm = norm_layer("batch" if config.input_batch_norm else "none", sizes[0])
        self.blocks = nn.Sequential()
        for i, (n_in, n_out) in enumerate(pairwise(sizes)):
            self.blocks.append(
                ParticleBlock(
                    n_in,
                    n_out,
                    activation=config.activation,
                    norm=config.norm if i else "none",
                    dropout=rates.particles if i else rates.inputs,
                    context=(branch.context or ()) if i else (),
                    heads=config.heads,
                    residual=config.residual,
                )
            )
        self.summary: Pool | LastState
        if isinstance(branch.summary, Recurrent):
            self.summary = LastState(sizes[-1], branch.summary.lstm, rates.particles)
        else:
            self.summary = Pool(sizes[-1], branch.summary or (), config.heads, rates.particles)
        self.norm = norm_layer(config.norm, self.summary.size)

    def forward(self, particles: Particles) -> Tensor:
        """(B, G)."""
        if self.subjets is not None:
            particles = self.subjets(particles)
        particles = particles.with_features(normalise_particles(self.input_norm, particles))
        summary_BG: Tensor = self.norm(self.summary(self.blocks(particles)))
        return summary_BG


class Model(JetModel):
    """normalise -> a branch for each collection -> join with jet-level features -> dense head."""

    def __init__(self, config: Config, inputs: InputSpec, outputs: int) -> None:
        super().__init__()
        check(config, inputs)
        self.inputs = InputSpec(inputs.jet if config.jet_features else (), inputs.collections)
        self.normalise = InputNormalisation(self.inputs)
        branches = {
            collection.name: CollectionBranch(config, collection) for collection in inputs.collections
        }
        self.branches = nn.ModuleDict(branches)
        self.jet_norm = norm_layer("batch" if config.input_batch_norm else "none", len(self.inputs.jet))
        self.head = Head(
            sum(branch.summary.size for branch in branches.values()) + len(self.inputs.jet),
            config.dense,
            outputs,
            activation=config.activation,
            norm=config.norm,
            dropout=config.rates().dense,
        )
        self.order_invariant = not any(isinstance(b.summary, LastState) for b in branches.values())

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits, (B, C)."""
        normalised = self.normalise(inputs)
        parts = [branch(normalised.collections[name]) for name, branch in self.branches.items()]
        if self.inputs.jet:
            parts.append(self.jet_norm(normalised.jet_BF))
        logits_BC: Tensor = self.head(torch.cat(parts, dim=1))
        return logits_BC

    def fit_inputs(self, sample: Inputs) -> list[str]:
        """Measures shift and scale of every feature, and the multiplicities."""
        for name, branch in self.branches.items():
            particles = sample.collections[name]
            lengths_B = particles.lengths_B if isinstance(particles, Packed) else particles.mask_BP.sum(1)
            for module in branch.modules():
                if isinstance(module, Pool):
                    module.multiplicity.fill_(max(float(lengths_B.double().mean()), 1.0))
        return self.normalise.fit(sample)

    def receptive_field(self) -> tuple[Reach, ...]:
        """A 1x1 convolution sees one particle; with context, all of them."""
        reaches = []
        for collection in self.inputs.collections:
            blocks = self.branches[collection.name].modules()
            sees_all = any(isinstance(module, Context) for module in blocks)
            reaches.append(Reach(collection.length if sees_all else 1, f"{collection.name} (particles)"))
        return tuple(reaches)


def check(config: Config, inputs: InputSpec) -> None:
    """Raises a JettaggerError where config and inputs do not fit together."""
    names = [collection.name for collection in inputs.collections]
    if not names:
        raise JettaggerError(
            "model.architecture: particle_cnn needs a collection of particles: "
            "add one under `inputs`, with `from` and `features`"
        )
    for name in config.collections:
        if name not in names:
            raise unknown_name("collection", name, names, where="model.collections")
    for collection in inputs.collections:
        branch = config.branch(collection.name)
        poolings = {*(branch.context or ()), *(branch.summary if isinstance(branch.summary, list) else ())}
        _check_subjets(branch.subjets, collection)
        if "pt" in poolings and not collection.coordinates:
            raise JettaggerError(
                f"model: pooling with pt weights needs to know pT: add inputs.{collection.name}.coordinates"
            )
        attending = [*(branch.widths or ())] if "attention" in poolings else []
        if any(width % config.heads for width in attending):
            raise JettaggerError(f"model.heads: {config.heads} heads do not divide the widths {attending}")


def _check_subjets(subjets: SubjetsSection | None, collection: CollectionInput) -> None:
    if subjets is None:
        return
    if not collection.coordinates:
        raise JettaggerError(f"model.subjets: add inputs.{collection.name}.coordinates to find them with")
    names = [feature.name for feature in collection.features]
    for name in subjets.signed:
        if name not in names:
            raise unknown_name("feature", name, names, where="model.subjets.signed")
