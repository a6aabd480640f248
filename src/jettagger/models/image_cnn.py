"""Convolutional network on jet images, drawn on the device from the particles' coordinates.

Shapes: B jets, C channels or classes, H x W pixels, F jet-level features. arXiv:1701.08784, arXiv:1803.00107.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jettagger.batch import CollectionInput, Inputs, InputSpec, Packed
from jettagger.errors import JettaggerError, unknown_name
from jettagger.models.parts.dropout import Dropout, Probability
from jettagger.models.parts.images import JetImage, PixelNormalisation, convolved_size, parse_channel
from jettagger.models.parts.initialisation import Initialisation
from jettagger.models.parts.layers import Activation, BatchNorm, Head, activation_layer, followed_by
from jettagger.models.parts.model import JetModel, Reach
from jettagger.models.parts.normalisation import InputNormalisation
from jettagger.schema import Section

Positive = Annotated[int, Field(gt=0)]

FITTED_IMAGES = 10_000
"""Images on which the pixels are measured."""


class Convolution(Section):
    """A convolution with its activation and pooling."""

    channels: Positive
    """Output channels."""
    kernel: Positive = 3
    """Pixels along a side."""
    pool: Positive = 1
    """Max pooling over this many pixels along a side; 1 for none."""


class DropoutRates(Section):
    """A rate for each part."""

    inputs: Probability = 0.0
    """Before the first convolution: pixels are dropped."""
    convolutions: Probability = 0.0
    """Before the other convolutions."""
    dense: Probability = 0.0
    """Before each layer of the dense head."""


class Config(Section):
    """The `model` section of an `image_cnn`."""

    architecture: Literal["image_cnn"] = "image_cnn"
    """Convolutions over jet images."""
    collection: str | None = None
    """The particles to draw; default: the only collection with coordinates."""
    channels: Annotated[list[str], Field(min_length=1)] = Field(default=["pt"])
    """What pixels add up: pt, count, pt * feature, count * feature (raw features of the particles)."""
    pixels: Annotated[int, Field(ge=4)] = 37
    """Along a side; odd, so that the centre of the jet is the middle of a pixel."""
    half_width: Annotated[float, Field(gt=0)] = 0.8
    """Half a side of the image, rad."""
    centre: bool = True
    """Moves the pT-weighted centroid to the middle."""
    rotate: bool = True
    """Turns the principal axis along eta, the heavier half to the right."""
    flip: bool = True
    """Mirrors so that the right and the upper half hold more pT."""
    normalise: bool = True
    """Divides pT by the jet's sum."""
    pixel_bias: Annotated[float, Field(gt=0)] | None = None
    """Divides each pixel by its spread plus this (in units of the channel's largest); null: by one number a
    channel. Small values make faint pixels count."""
    convolutions: Annotated[list[Convolution], Field(min_length=1)] = Field(
        default=[
            Convolution(channels=16, kernel=5, pool=2),
            Convolution(channels=32, kernel=3, pool=2),
            Convolution(channels=64, kernel=3, pool=2),
        ]
    )
    """One after the other."""
    padding: Literal["same", "valid"] = "same"
    """`same` keeps the size under an odd kernel; `valid` uses whole neighbourhoods only."""
    jet_features: bool = True
    """Joins the jet-level features, if the config has any, before the dense head."""
    dense: list[Positive] = Field(default=[64])
    """Units of each hidden layer of the head."""
    activation: Activation = "relu"
    """Of all hidden layers."""
    norm: Literal["none", "batch"] = "batch"
    """Normalisation before each layer but the first."""
    dropout: Probability | DropoutRates = 0.0
    """A number: before every layer but the first; or {inputs, convolutions, dense}."""
    initialisation: Initialisation = "auto"
    """`auto` follows the activation."""

    def rates(self) -> DropoutRates:
        """Dropout, part by part."""
        if isinstance(self.dropout, DropoutRates):
            return self.dropout
        return DropoutRates(convolutions=self.dropout, dense=self.dropout)


class ConvolutionBlock(nn.Module):
    """norm -> dropout -> convolution -> activation -> max pooling, (B, C, H, W) -> (B, D, H', W')."""

    def __init__(
        self,
        inputs: int,
        size: int,
        layer: Convolution,
        activation: str,
        padding: int,
        norm: str,
        dropout: float,
    ) -> None:
        super().__init__()
        self.norm = BatchNorm(inputs) if norm == "batch" else nn.Identity()
        self.dropout = Dropout(dropout, (inputs, size, size))
        convolution = nn.Conv2d(inputs, layer.channels, layer.kernel, padding=padding)
        self.convolution = followed_by(activation, convolution)
        self.activation = activation_layer(activation)
        self.pool = nn.MaxPool2d(layer.pool) if layer.pool > 1 else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W')."""
        y: Tensor = self.pool(self.activation(self.convolution(self.dropout(self.norm(x_BCHW)))))
        return y


class Model(JetModel):
    """draw -> normalise pixels -> convolutions -> flatten -> join with jet-level features -> dense head."""

    def __init__(self, config: Config, inputs: InputSpec, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.collection = drawn_collection(config, inputs)
        self.inputs = InputSpec(inputs.jet if config.jet_features else (), (self.collection,))
        self.normalise = InputNormalisation(InputSpec(jet=self.inputs.jet))
        self.draw = JetImage(
            [parse_channel(text, self.collection) for text in config.channels],
            pixels=config.pixels,
            half_width=config.half_width,
            centre=config.centre,
            rotate=config.rotate,
            flip=config.flip,
            normalise=config.normalise,
        )
        self.normalise_pixels = PixelNormalisation(len(config.channels), config.pixels)
        self.convolutions, flat = convolution_stack(config)
        self.head = Head(
            flat + len(self.inputs.jet),
            config.dense,
            outputs,
            activation=config.activation,
            norm=config.norm,
            dropout=config.rates().dense,
        )

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits, (B, C)."""
        images_BCHW = self.images(inputs)
        if self.channels_last:
            images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        flat_BF = self.convolutions(images_BCHW).flatten(1)
        if self.inputs.jet:
            jet_BF = self.normalise.jet_features(inputs)
            assert jet_BF is not None
            flat_BF = torch.cat([flat_BF, jet_BF], dim=1)
        logits_BC: Tensor = self.head(flat_BF)
        return logits_BC

    def images(self, inputs: Inputs) -> Tensor:
        """What the first convolution sees, (B, C, H, W): also for figures."""
        images_BCHW: Tensor = self.normalise_pixels(self.draw(inputs.collections[self.collection.name]))
        return images_BCHW

    def fit_inputs(self, sample: Inputs) -> list[str]:
        """Measures the jet-level features, and the pixels after drawing."""
        particles = sample.collections[self.collection.name]
        particles = particles if isinstance(particles, Packed) else particles.packed()
        images_BCHW = self.draw(first_jets(particles, FITTED_IMAGES))
        pixels = self.normalise_pixels.fit(images_BCHW, self.config.pixel_bias, self.config.channels)
        return self.normalise.fit(sample) + pixels

    def receptive_field(self) -> tuple[Reach, ...]:
        """What one unit of the last feature map sees."""
        size, step = 1, 1
        for layer in self.config.convolutions:
            size += (layer.kernel - 1) * step + (layer.pool - 1) * step
            step *= layer.pool
        return Reach(size, "pixels"), Reach(size * 2 * self.config.half_width / self.config.pixels, "rad")


def drawn_collection(config: Config, inputs: InputSpec) -> CollectionInput:
    """The collection that images are made of; a JettaggerError where there is none."""
    drawable = [collection for collection in inputs.collections if collection.coordinates]
    if config.collection is not None:
        named = {collection.name: collection for collection in inputs.collections}
        if config.collection not in named:
            raise unknown_name("collection", config.collection, named, where="model.collection")
        drawable = [named[config.collection]]
    if not drawable or not drawable[0].coordinates:
        names = [drawable[0].name] if drawable else [c.name for c in inputs.collections] or ["particles"]
        raise JettaggerError(
            "model.architecture: image_cnn draws particles: "
            f"add inputs.{names[0]}.coordinates with eta, phi and pt"
        )
    if len(drawable) > 1:
        names = [collection.name for collection in drawable]
        raise JettaggerError(f"model.collection: say which collection to draw (one of {', '.join(names)})")
    return drawable[0]


def convolution_stack(config: Config) -> tuple[nn.Sequential, int]:
    """The convolutions and the number of values that they leave; a JettaggerError where no pixel is left."""
    blocks, channels, size, rates = nn.Sequential(), len(config.channels), config.pixels, config.rates()
    for i, layer in enumerate(config.convolutions):
        padding = layer.kernel // 2 if config.padding == "same" else 0
        norm, dropout = (config.norm, rates.convolutions) if i else ("none", rates.inputs)
        blocks.append(ConvolutionBlock(channels, size, layer, config.activation, padding, norm, dropout))
        channels, size = layer.channels, convolved_size(size, layer.kernel, padding, layer.pool)
        if size < 1:
            raise JettaggerError(
                f"model.convolutions: no pixel is left after number {i + 1}; use fewer or less pooling"
            )
    return blocks, channels * size**2


def first_jets(particles: Packed, jets: int) -> Packed:
    """The first jets of a sample, which is in random order."""
    lengths_B = particles.lengths_B[:jets]
    rows = slice(0, int(lengths_B.sum()))
    coordinates = particles.coordinates_NK
    return Packed(particles.features_NF[rows], lengths_B, None if coordinates is None else coordinates[rows])
