"""P-CNN: a one-dimensional ResNet along the particles of a jet, hardest first.

Shapes: B jets, P particle slots, F features, C classes; (B, F, 1, P) is an image with one row.

Introduced for Top tagging in arXiv:1902.09914, after DeepAK8 (arXiv:2004.08262); layers as in arXiv:2202.03772. Its
padding is part of what it sees: convolutions, batch normalisation and the mean run over all slots, of which those
without a particle hold zeros at first.
"""

from itertools import pairwise
from typing import Annotated, Literal, TypeGuard

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from jettagger.batch import Inputs, InputSpec, Packed, Particles
from jettagger.models.parts.collections import chosen_collection
from jettagger.models.parts.dropout import Dropout, Probability
from jettagger.models.parts.initialisation import Initialisation
from jettagger.models.parts.layers import BatchNorm, Head, followed_by
from jettagger.models.parts.model import JetModel, Reach
from jettagger.models.parts.normalisation import InputNormalisation
from jettagger.models.parts.slots import Slots, convolve, in_sequence, map_linearly, normalise
from jettagger.schema import Section

Positive = Annotated[int, Field(gt=0)]
Jets = Tensor | Slots
"""(B, F, 1, P), or jets whose padding is computed once."""
Stage = Annotated[list[Positive], Field(min_length=1)]


class Config(Section):
    """The `model` section of a `p_cnn`."""

    architecture: Literal["p_cnn"] = "p_cnn"
    """A one-dimensional ResNet along the particles; the padding up to the collection's `length` is part of it."""
    collection: str | None = None
    """The particles; default: the only collection, or the only one with coordinates."""
    first: Positive = 32
    """Channels of the first convolution."""
    stages: Annotated[list[Stage], Field(min_length=1)] = Field(default=[[64, 64], [64, 64], [128, 128]])
    """Channels of each unit of two convolutions, stage by stage; every stage but the first halves the slots."""
    dense: list[Positive] = Field(default=[512])
    """Units of each hidden layer of the head."""
    dropout: Probability = 0.0
    """Before each layer of the head but the first; published: 0.2."""
    convolution_dropout: Probability = 0.0
    """Before every other layer; published: none."""
    initialisation: Initialisation = "auto"
    """`auto` follows the activation."""


class ConvolutionBlock(nn.Module):
    """dropout -> convolution over three neighbours -> batch norm -> ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout, (inputs, 1, 1), of="particle")
        convolution = nn.Conv2d(inputs, outputs, (1, 3), stride=(1, stride), padding=(0, 1))
        self.convolution = followed_by("relu", convolution)
        self.norm = BatchNorm(outputs)

    def forward(self, x: Jets) -> Jets:
        """F features -> G; with stride 2 half the slots."""
        if isinstance(x, Slots):
            return normalise(self.norm, convolve(self.convolution, x), rectify=True)
        return functional.relu(self.norm(self.convolution(self.dropout(x))))


class Unit(nn.Module):
    """Two convolutions, and the input added after the last ReLU: as it is, or linearly mapped to the new shape."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.first = ConvolutionBlock(inputs, outputs, stride, dropout)
        self.second = ConvolutionBlock(outputs, outputs, 1, dropout)
        self.shortcut: Shortcut | None = None
        if inputs != outputs or stride > 1:
            self.shortcut = Shortcut(inputs, outputs, stride, dropout)

    def forward(self, x: Jets) -> Jets:
        """F features -> G; with stride 2 half the slots."""
        changed: Jets = self.second(self.first(x))
        added: Jets = x if self.shortcut is None else self.shortcut(x)
        if isinstance(changed, Slots) and isinstance(added, Slots):
            return changed.plus(added)
        assert isinstance(changed, Tensor)
        assert isinstance(added, Tensor)
        return changed + added


class Shortcut(nn.Module):
    """dropout -> convolution over one slot, without bias."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout, (inputs, 1, 1), of="particle")
        self.convolution = nn.Conv2d(inputs, outputs, 1, stride=(1, stride), bias=False)

    def forward(self, x: Jets) -> Jets:
        """F features -> G; with stride 2 half the slots."""
        if isinstance(x, Slots):
            return map_linearly(self.convolution, x)
        y_BG1P: Tensor = self.convolution(self.dropout(x))
        return y_BG1P


class Model(JetModel):
    """normalise -> batch norm -> convolution -> stages of residual units -> mean over all slots -> dense head."""

    fixed_length = True
    order_invariant = False

    def __init__(self, config: Config, inputs: InputSpec, outputs: int) -> None:
        super().__init__()
        self.collection = chosen_collection(config.collection, inputs, "p_cnn", coordinates=False)
        self.inputs = InputSpec(collections=(self.collection,))
        self.normalise = InputNormalisation(self.inputs)
        features, rate = len(self.collection.features), config.convolution_dropout
        self.input_norm = BatchNorm(features)
        self.first = ConvolutionBlock(features, config.first, 1, rate)
        self.stages = nn.ModuleList()
        channels = config.first
        for number, widths in enumerate(config.stages):
            strides = [2 if number and not unit else 1 for unit in range(len(widths))]
            sizes = pairwise([channels, *widths])
            units = [Unit(*size, stride, rate) for size, stride in zip(sizes, strides, strict=True)]
            self.stages.append(nn.Sequential(*units))
            channels = widths[-1]
        self.head = Head(
            channels,
            config.dense,
            outputs,
            activation="relu",
            norm="none",
            dropout=config.dropout,
            first_dropout=rate,
        )
        self.dropping = rate > 0

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits, (B, C)."""
        particles = self.normalise(inputs).collections[self.collection.name]
        mean_BF = self._once(particles) if self._pads_once(particles) else self._dense(particles)
        logits_BC: Tensor = self.head(mean_BF)
        return logits_BC

    def _pads_once(self, particles: Particles) -> TypeGuard[Packed]:
        """Whether padding is computed once for all jets.

        An accelerator would wait for the lengths; and with dropout no jet's padding equals another's. Ranks that share
        a batch sum their statistics in the same way, however few of its jets one has.
        """
        if self.dropping or not isinstance(particles, Packed):
            return False
        shared = self.training and self.input_norm.reduce is not None
        return (shared or len(particles.lengths_B) > 1) and not particles.features_NF.is_cuda

    def _once(self, particles: Packed) -> Tensor:
        """(B, F) from the sequence of jets that `parts.slots` works on."""
        # How many slots beyond a jet's last particle the layers of each stage change.
        beyond = [2 * len(self._units(number)) for number in range(len(self.stages))]
        beyond[0] += 1  # the first convolution
        raw = in_sequence(particles, self.collection.length, beyond)
        slots: Slots = self.first(normalise(self.input_norm, raw, rectify=False))
        for stage in self.stages:
            slots = stage(slots)
        return slots.mean()

    def _dense(self, particles: Particles) -> Tensor:
        """(B, F) from all slots of all jets, in the layout that oneDNN's convolutions are fastest on."""
        length = self.collection.length
        dense = particles.dense(length) if isinstance(particles, Packed) else particles
        missing = length - dense.mask_BP.shape[1]
        x_BPF = dense.features_BPF
        x_BPF = functional.pad(x_BPF, (0, 0, 0, missing)) if missing > 0 else x_BPF[:, :length]
        x_BF1P = self.input_norm(x_BPF.unsqueeze(1).permute(0, 3, 1, 2))
        x_BF1P = self.first(x_BF1P)
        for stage in self.stages:
            x_BF1P = stage(x_BF1P)
        mean_BF: Tensor = x_BF1P.mean((2, 3))
        return mean_BF

    def fit_inputs(self, sample: Inputs) -> list[str]:
        """Measures shift and scale of every feature, over real particles."""
        return self.normalise.fit(sample)

    def receptive_field(self) -> tuple[Reach, ...]:
        """What one slot of the last stage sees."""
        size, step = 3, 1
        for number in range(len(self.stages)):
            size += 2 * step  # the convolution that halves the slots still steps over all of them
            step *= 2 if number else 1
            size += 2 * step * (2 * len(self._units(number)) - 1)
        return (Reach(size, f"{self.collection.name} (slots)"),)

    def _units(self, stage: int) -> nn.Sequential:
        units = self.stages[stage]
        assert isinstance(units, nn.Sequential)
        return units
