"""Multilayer perceptron on jet-level variables: any depth and activation.

Shapes: B jets, F features, C classes. DeepCSV, 5 x 100 relu on 66 variables, is of this family
(arXiv:1712.07158).
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from jettagger.batch import Inputs, InputSpec
from jettagger.errors import JettaggerError
from jettagger.models.parts.dropout import Probability
from jettagger.models.parts.initialisation import Initialisation
from jettagger.models.parts.layers import Activation, Head, Norm
from jettagger.models.parts.model import JetModel
from jettagger.models.parts.normalisation import InputNormalisation
from jettagger.schema import Section


class Config(Section):
    """The `model` section of an `mlp`."""

    architecture: Literal["mlp"] = "mlp"
    """Multilayer perceptron on the jet-level features."""
    widths: list[Annotated[int, Field(gt=0)]] = Field(default=[128, 128, 128])
    """Units of each hidden layer; their number is the depth."""
    activation: Activation = "relu"
    """Of the hidden layers."""
    norm: Norm = "none"
    """Normalisation after each hidden layer: batch, layer or none."""
    dropout: Probability = 0.0
    """Before every layer but the first."""
    input_dropout: Probability = 0.0
    """Before the first layer."""
    initialisation: Initialisation = "auto"
    """`auto` follows the activation."""


class Model(JetModel):
    """normalise -> (dropout -> linear -> activation) x depth -> dropout -> linear."""

    def __init__(self, config: Config, inputs: InputSpec, outputs: int) -> None:
        super().__init__()
        if not inputs.jet:
            raise JettaggerError("model.architecture: mlp needs jet-level variables: add inputs.jet.features")
        self.inputs = InputSpec(jet=inputs.jet)
        self.normalise = InputNormalisation(self.inputs)
        self.head = Head(
            len(inputs.jet),
            config.widths,
            outputs,
            activation=config.activation,
            norm=config.norm,
            dropout=config.dropout,
            first_dropout=config.input_dropout,
        )

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits, (B, C); collections are not looked at."""
        logits_BC: Tensor = self.head(self.normalise.jet_features(inputs))
        return logits_BC

    def fit_inputs(self, sample: Inputs) -> list[str]:
        """Measures shift and scale of every feature."""
        return self.normalise.fit(sample)
