"""The section of the YAML that says how a tagger is judged."""

from typing import Annotated

from pydantic import AfterValidator, Field

from jettagger.schema import Section

Fraction = Annotated[float, Field(gt=0, le=1)]


def _ascending(values: list[float]) -> list[float]:
    if sorted(set(values)) != values:
        raise ValueError(f"must ascend without repetition, not {values}")
    return values


class EvaluationSection(Section):
    """What is measured, and in which bins it is drawn. All fields have defaults."""

    signal: str | None = None
    """Class whose efficiency is fixed. Default: the last of two classes; of more, each one in turn."""
    background: str | None = None
    """Class that is rejected. Default: every class other than the signal in turn."""
    signal_efficiencies: Annotated[list[Fraction], Field(min_length=1), AfterValidator(_ascending)] = Field(
        default_factory=lambda: [0.3, 0.5, 0.8]
    )
    """Signal efficiencies at which the background rejection is quoted."""
    working_point: Fraction = 0.5
    """Signal efficiency of the cut that is drawn against pT and mass."""
    pt: str | None = "jet_pt"
    """Spectator against which efficiency and mistag are drawn, GeV; left out where it is not there."""
    mass: str | None = "jet_sdmass"
    """Spectator whose background spectrum is drawn before and after the cut, GeV; likewise."""
    pt_bins: Annotated[int, Field(ge=1, le=100)] = 8
    """Bins of equal weight in pT."""
    mass_bins: Annotated[int, Field(ge=2, le=500)] = 40
    """Bins of equal width in mass, up to the 99.5 % quantile of the background."""
    score_bins: Annotated[int, Field(ge=2, le=500)] = 40
    """Bins of the score distributions."""
    calibration_bins: Annotated[int, Field(ge=2, le=200)] = 15
    """Bins of equal width of the calibration curve and errors."""
    reference: str | None = None
    """Run (or group of seeds) that the others are compared with. Default: the first."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 300
    """Replicas of the test sample, shared by all runs, for the errors of differences; 0 for none."""
    seed: int = 1
    """Of the replicas."""
    mc_dropout: Annotated[int, Field(ge=2)] | None = None
    """Passes with dropout switched on, evaluated beside the plain prediction; null for none."""
    label: str = "jettagger simulation"
    """Words at the top of each figure; the first is set in bold."""
