"""The section `targets` of the YAML: what a network regresses."""

from jettagger.data.expression_text import ExpressionText
from jettagger.outputs.schema import TargetLossSection
from jettagger.schema import Positive, Section


class TargetSection(Section):
    """A number that is regressed, beside classes or alone."""

    value: ExpressionText
    """What is predicted, from the truth; a jet for which it is NaN does not enter this target's loss."""
    loss: TargetLossSection = TargetLossSection()
    """A name, or a section with the name and its settings."""
    weight: Positive = 1.0
    """What its loss, in units of the target's spread, counts beside the others."""


def output_columns(name: str, section: TargetSection) -> tuple[str, ...]:
    """What a prediction may hold of a target: its value, error, spread between networks, quantiles."""
    levels = section.loss.quantiles if section.loss.name == "quantile" else []
    return (name, f"{name}_error", f"{name}_std", *(quantile_column(name, level) for level in levels))


def quantile_column(name: str, level: float) -> str:
    """`mass_q16` for the level 0.16, `mass_q2p5` for 0.025."""
    return f"{name}_q{100 * level:g}".replace(".", "p")
