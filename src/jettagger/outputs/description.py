"""Which output columns of a network belong to which class or target, and how they are decoded.

Shapes: (…) jets, or members and jets; K output columns, C classes, T targets, Q quantiles.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from jettagger.outputs.schema import ClassLossSection, TargetLossName, TargetLossSection

Activation = Literal["softmax", "sigmoid", "linear"]

LEAST_VARIANCE = 1.0e-6
"""Of a target in units of its spread, so that no logarithm diverges."""

SHARPNESS = 100.0
"""How closely `log_positive` follows a linear output: it differs by ln 2 / 100 at 0, and by less elsewhere."""


LOWEST = -30.0
"""Below it softplus(y) is exp(y) to all digits."""


class Estimate(NamedTuple):
    """What one network says of a target, in the user's units."""

    value: Tensor
    """(…): the mean, or the median."""
    variance: Tensor | None = None
    """(…), of the noise; None where the loss teaches none."""
    quantiles: Tensor | None = None
    """(…, Q), ascending; None for other losses."""


@dataclass(frozen=True)
class TargetOutput:
    """The columns of a target."""

    name: str
    loss: TargetLossName
    quantiles: tuple[float, ...] = ()
    """Levels; empty for other losses."""
    weight: float = 1.0
    """What its loss counts beside the others."""

    @property
    def width(self) -> int:
        """Columns: the value; value and variance; or one a quantile."""
        return {"mse": 1, "gaussian_nll": 2, "quantile": len(self.quantiles)}[self.loss]


@dataclass(frozen=True)
class Outputs:
    """All output columns, in their order: the classes, then the targets."""

    classes: tuple[str, ...]
    """Empty for a pure regression."""
    activation: Activation = "softmax"
    """What makes probabilities of the columns of the classes; `sigmoid` has one column for two classes."""
    targets: tuple[TargetOutput, ...] = ()

    @property
    def class_columns(self) -> int:
        """How many columns the classes have."""
        return 1 if self.activation == "sigmoid" else len(self.classes)

    @property
    def width(self) -> int:
        """K, the network's last width."""
        return self.class_columns + sum(target.width for target in self.targets)

    def logits(self, raw: Tensor) -> Tensor:
        """(…, C): a sigmoid's single column z as (0, z); the largest is the class that is predicted."""
        columns = raw[..., : self.class_columns]
        if self.activation == "sigmoid":
            return torch.cat((torch.zeros_like(columns), columns), -1)
        return columns

    def probabilities(self, raw: Tensor) -> Tensor:
        """(…, C), positive, with the sum 1.

        Linear outputs estimate probabilities, and may leave [0, 1]: they are made positive in their order (see
        `log_positive`), so that no two jets tie, and divided by their sum.
        """
        logits = self.logits(raw)
        if self.activation == "linear":
            return torch.softmax(log_positive(logits), -1)
        return torch.softmax(logits, -1)

    def columns_of(self, name: str) -> slice:
        """Where the columns of a target are."""
        first = self.class_columns
        for target in self.targets:
            if target.name == name:
                return slice(first, first + target.width)
            first += target.width
        raise KeyError(name)

    def estimates(self, raw: Tensor, shift_T: Tensor, scale_T: Tensor) -> dict[str, Estimate]:
        """What the columns say of each target; the network gives (target - shift) / scale."""
        found = {}
        for target, shift, scale in zip(self.targets, shift_T, scale_T, strict=True):
            columns = raw[..., self.columns_of(target.name)]
            if target.loss == "quantile":
                quantiles = columns.sort(-1).values * scale + shift  # trained one by one, they may cross
                found[target.name] = Estimate(quantiles[..., target.quantiles.index(0.5)], None, quantiles)
            elif target.loss == "gaussian_nll":
                spread = variance(columns[..., 1]) * scale.square()
                found[target.name] = Estimate(columns[..., 0] * scale + shift, spread)
            else:
                found[target.name] = Estimate(columns[..., 0] * scale + shift)
        return found


def describe(
    classes: Sequence[str],
    loss: ClassLossSection,
    targets: Mapping[str, tuple[TargetLossSection, float]],
) -> Outputs:
    """The columns that the losses of a config ask for; each target has its loss and its weight."""
    if loss.name == "binary_cross_entropy":
        activation: Activation = "sigmoid"
    else:
        activation = "linear" if loss.name == "mse" and loss.output == "linear" else "softmax"
    return Outputs(
        tuple(classes),
        activation if classes else "softmax",
        tuple(
            TargetOutput(name, one.name, tuple(one.quantiles) if one.name == "quantile" else (), weight)
            for name, (one, weight) in targets.items()
        ),
    )


def plain(classes: int) -> Outputs:
    """A softmax over so many classes without names."""
    return Outputs(tuple(map(str, range(classes))))


def variance(column: Tensor) -> Tensor:
    """The positive variance that an output column stands for, in units of the target's spread."""
    return functional.softplus(column) + LEAST_VARIANCE


def log_positive(outputs: Tensor) -> Tensor:
    """ln[softplus(s·x)/s] with s = SHARPNESS: ln x where x is above 0.05, strictly rising everywhere."""
    steep = outputs * SHARPNESS
    # Far below 0 softplus(y) is exp(y), which underflows before its logarithm is taken.
    raised = functional.softplus(steep.clamp(min=LOWEST), threshold=30.0).log()
    return torch.where(steep > LOWEST, raised, steep) - math.log(SHARPNESS)
