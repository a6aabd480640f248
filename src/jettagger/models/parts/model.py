"""What every architecture's `Model` offers.

Shapes: B jets, C classes.
"""

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from jettagger.batch import Inputs, InputSpec


class Reach(NamedTuple):
    """How far one unit of the last local layer sees."""

    size: float
    unit: str
    """pixels, rad or particles."""


class JetModel(nn.Module):
    """Jets in, logits out. Normalisation is the first layer, so inputs are raw."""

    fixed_length: bool = False
    """Whether the result depends on the number of padded slots, as in some published networks."""
    order_invariant: bool = True
    """Whether the order of the particles of a jet plays no role."""
    channels_last: bool = True
    """Whether images may lie with their channels last in memory; `torch.vmap` knows no such order."""
    inputs: InputSpec
    """What `forward` looks at; anything else in its argument plays no role."""

    @abstractmethod
    def forward(self, inputs: Inputs) -> Tensor:
        """Logits, (B, C), of jets whose collections are packed or dense."""

    @abstractmethod
    def fit_inputs(self, sample: Inputs) -> list[str]:
        """Measures the normalisation on training jets (raw, packed); returns warnings to show."""

    def receptive_field(self) -> tuple[Reach, ...]:
        """How far one unit of the last local layer sees, in each unit that makes sense; empty: everything."""
        return ()

    def __call__(self, inputs: Inputs) -> Tensor:
        """See `forward`."""
        logits_BC: Tensor = super().__call__(inputs)
        return logits_BC
