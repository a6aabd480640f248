"""The losses of the YAML, which decide what the output columns of a network mean."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from jettagger.schema import Named

ClassLossName = Literal["cross_entropy", "binary_cross_entropy", "focal", "mse"]
TargetLossName = Literal["gaussian_nll", "mse", "quantile"]
Level = Annotated[float, Field(gt=0, lt=1)]


class ClassLossSection(Named):
    """What is minimised for the classes; the output activation follows."""

    KIND: ClassVar[str] = "loss"

    name: ClassLossName = "cross_entropy"
    """`cross_entropy` of a softmax; `binary_cross_entropy` of one sigmoid output, for two classes; `focal`
    (arXiv:1708.02002): cross-entropy times (1 - p)^gamma; `mse`: squared distance to 1 for the class, 0 for others."""
    gamma: Annotated[float, Field(ge=0)] = 2.0
    """focal: how little jets count that are classified well already; 0 is cross-entropy."""
    output: Literal["linear", "softmax"] = "linear"
    """mse: the outputs as they are, or after a softmax (DeepTop, arXiv:1701.08784)."""

    @model_validator(mode="after")
    def _consistent(self) -> "ClassLossSection":
        self._only_for({"focal"}, "gamma")
        self._only_for({"mse"}, "output")
        return self


class TargetLossSection(Named):
    """What is minimised for a target; it decides what the network says of its error."""

    KIND: ClassVar[str] = "loss"

    name: TargetLossName = "gaussian_nll"
    """`gaussian_nll`: mean and error of each jet (arXiv:1612.01474); `mse`: the mean, without an error; `quantile`:
    quantiles of what is possible, by the pinball loss."""
    quantiles: Annotated[list[Level], Field(min_length=1)] = Field(default=[0.16, 0.5, 0.84])
    """quantile: the levels, ascending, with 0.5 among them: the median is the prediction."""

    @field_validator("quantiles")
    @classmethod
    def _with_median(cls, levels: list[float]) -> list[float]:
        if sorted(set(levels)) != levels or 0.5 not in levels:
            raise ValueError(
                f"levels must ascend without repetition and hold 0.5, the prediction, not {levels}"
            )
        return levels

    @model_validator(mode="after")
    def _consistent(self) -> "TargetLossSection":
        self._only_for({"quantile"}, "quantiles")
        return self
