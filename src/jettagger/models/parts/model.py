"""What every architecture's `Model` offers.

Shapes: B jets, K output columns, T targets.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jettagger.batch import Inputs, InputSpec
from jettagger.outputs.description import Outputs


class Reach(NamedTuple):
    """How far one unit of the last local layer sees."""

    size: float
    unit: str
    """pixels, rad or particles."""


class JetModel(nn.Module):
    """Jets in, output columns out. Normalisation is the first layer, so inputs are raw."""

    fixed_length: bool = False
    """Whether the result depends on the number of padded slots, as in some published networks."""
    order_invariant: bool = True
    """Whether the order of the particles of a jet plays no role."""
    channels_last: bool = True
    """Whether images may lie with their channels last in memory; `torch.vmap` knows no such order."""
    inputs: InputSpec
    """What `forward` looks at; anything else in its argument plays no role."""
    outputs: Outputs
    """What its output columns mean; set by `models.build`."""
    target_shift: Tensor
    target_scale: Tensor
    """(T,): the columns give (target - shift) / scale. Buffers, only where there are targets."""

    @abstractmethod
    def forward(self, inputs: Inputs) -> Tensor:
        """Output columns, (B, K), of jets whose collections are packed or dense: logits of the classes first."""

    @abstractmethod
    def fit_inputs(self, sample: Inputs) -> list[str]:
        """Measures the normalisation on training jets (raw, packed); returns warnings to show."""

    def set_outputs(self, outputs: Outputs) -> None:
        """Says what the output columns mean; targets are not shifted and scaled yet."""
        self.outputs = outputs
        if outputs.targets:
            self.register_buffer("target_shift", torch.zeros(len(outputs.targets)))
            self.register_buffer("target_scale", torch.ones(len(outputs.targets)))

    def receptive_field(self) -> tuple[Reach, ...]:
        """How far one unit of the last local layer sees, in each unit that makes sense; empty: everything."""
        return ()

    def __call__(self, inputs: Inputs) -> Tensor:
        """See `forward`."""
        raw_BK: Tensor = super().__call__(inputs)
        return raw_BK
