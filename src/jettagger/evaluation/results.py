"""Figures of merit of one run, with everything that is needed to draw them.

Shapes: N jets, C classes, M members, G points of a curve, K bins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jettagger.advice import Epoch
from jettagger.evaluation.predictions import Cost, Evaluated
from jettagger.evaluation.regression import TargetResult
from jettagger.evaluation.schema import EvaluationSection
from jettagger.metrics import (
    CalibrationCurve,
    Confusion,
    Efficiency,
    Histogram,
    Measurement,
    Rejection,
    RiskCoverage,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """The ROC of a pair of classes on a grid of signal efficiencies."""

    signal_efficiency_G: Floats
    """Wanted efficiencies, ascending to 1."""
    background_efficiency_G: Floats
    """Of the step ROC there; 0 where no background is left."""
    background_error_G: Floats
    """Binomial error of it."""
    member_low_G: Floats | None
    """Smallest background efficiency of the M members; None for fewer than two members."""
    member_high_G: Floats | None
    """Largest background efficiency of the M members."""


@dataclass(frozen=True)
class Dependence:
    """Efficiencies in bins of a spectator, for one cut on all jets."""

    variable: str
    """Name of the spectator."""
    edges: Floats
    """K + 1 edges, GeV for pT."""
    signal: Efficiency
    """Fraction of the signal that passes."""
    background: Efficiency
    """Fraction of the background that passes (mistag)."""


@dataclass(frozen=True)
class MassSpectra:
    """Background mass before and after the cut."""

    variable: str
    """Name of the spectator."""
    before: Histogram
    """All background jets."""
    after: Histogram
    """Those that pass the cut."""
    divergence: float
    """Jensen-Shannon divergence of the two normalised spectra, bits: 0 equal shapes, 1 no overlap."""
    divergence_floor: float
    """Its mean for as many jets drawn from `before` at random: what fluctuations alone give."""


@dataclass(frozen=True)
class PairResult:
    """One class against another; only jets of these two enter."""

    signal: str
    """Class whose efficiency is fixed."""
    background: str
    """Class that is rejected."""
    auc: Measurement
    """Area under the ROC of D = p_S / (p_S + p_B)."""
    rejections: Mapping[float, Rejection]
    """By wanted signal efficiency."""
    working_point: Rejection
    """The cut that is drawn against pT and mass."""
    curve: Curve
    """The ROC."""
    signal_scores: Histogram
    """D of the signal jets (of a cut: its score)."""
    background_scores: Histogram
    """D of the background jets."""
    pt: Dependence | None
    """Efficiency and mistag against pT; None without the spectator."""
    mass: MassSpectra | None
    """Mass spectra; None without the spectator."""
    member_auc_M: Floats
    """AUC of each member; empty where members are not kept."""
    member_rejection: Mapping[float, Floats]
    """Rejections of the members by wanted signal efficiency; NaN where no background is left."""

    @property
    def name(self) -> str:
        """`Top_vs_QCD`."""
        return f"{self.signal}_vs_{self.background}"


@dataclass(frozen=True)
class UncertaintyResult:
    """Whether one measure of uncertainty finds the mistakes."""

    right: Histogram
    """Of jets that are classified rightly."""
    wrong: Histogram
    """Of jets that are classified wrongly."""
    coverage: RiskCoverage
    """Error of the jets that are kept, the most certain first; thinned to a grid, its area is exact."""
    error_at_80: float
    """Error when the least certain 20 % are left out."""
    misclassification_auc: Measurement
    """P(a wrong jet is more uncertain than a right one)."""


@dataclass(frozen=True)
class Result:
    """One run on one test sample. What a discriminant without probabilities lacks is None."""

    name: str
    """Of the run."""
    group: str | None
    """Runs that differ in their seed only."""
    seed: int | None
    """Of the training."""
    evaluated: Evaluated
    """Which jets these are."""
    cost: Cost | None
    """Of all trainings of the run together; None where it is not known."""
    classes: tuple[str, ...]
    """Output order."""
    n_jets: int
    """Jets of the test sample."""
    n_effective: float
    """(sum w)^2 / sum w^2."""
    n_jets_of_class: tuple[int, ...]
    """In the order of the classes."""
    samples: int
    """Members or dropout passes that the mean was taken over; 1 for a single network or a cut."""
    auc: Measurement | None
    """None without classes. Of the pair; macro average of each class against the rest for more than two classes."""
    accuracy: Measurement | None
    """Fraction whose most probable class is the true one."""
    nll: Measurement | None
    """Mean -ln p(true class), nats."""
    brier: Measurement | None
    """Mean sum_k (p_k - y_k)^2 over all classes, in [0, 2]."""
    ece: Measurement | None
    """Top-label calibration error, bins of equal width."""
    ece_floor: float | None
    """What a perfectly calibrated tagger would show for `ece`."""
    adaptive_ece: Measurement | None
    """Top-label calibration error, bins of equal weight."""
    classwise_ece: Measurement | None
    """Mean over classes of the calibration error of P(class)."""
    signal_ece: Measurement | None
    """Calibration error of P(signal); two classes only."""
    confusion: Confusion | None
    """True class (row) against most probable class (column)."""
    calibration: CalibrationCurve | None
    """Of P(signal) for two classes, of the most probable class for more."""
    pairs: tuple[PairResult, ...]
    """Pairs of classes that the settings ask for."""
    uncertainty: Mapping[str, UncertaintyResult]
    """By measure: `total_entropy`, `mutual_information`, `expected_entropy`, `std`, `discriminant_std`."""
    targets: tuple[TargetResult, ...]
    """Regression; empty for a classifier."""
    guessing: int | None
    """Classes where the loss of a guess is ln(classes); None for other losses."""
    history: Sequence[Sequence[Epoch]]
    """For each network the epochs of its training."""
    trainings: Sequence[str]
    """Which training each of `history` is; empty: those of members 0, 1, …."""
    n_parameters: int | None
    """Trainable parameters of one member."""
    training_seconds: float | None
    """Wall time of the training, all members."""
    notes: tuple[str, ...]
    """What a reader must know: failed members, spectators that are not there."""

    @property
    def headline(self) -> PairResult:
        """The pair whose rejections stand in the headline table.

        The last class against the first if that is measured, else the first pair.
        """
        first, last = self.classes[0], self.classes[-1]
        wanted = (pair for pair in self.pairs if (pair.signal, pair.background) == (last, first))
        return next(wanted, self.pairs[0])


@dataclass(frozen=True)
class Difference:
    """A run, or the mean over a group of seeds, minus the reference on the same jets."""

    name: str
    """Run or group."""
    reference: str
    """Run or group that is subtracted."""
    figures: Mapping[str, Measurement]
    """`auc`, `accuracy`, `nll`, `brier`, `ece`: difference and paired-bootstrap error."""
    log_rejection_ratio: Mapping[str, Mapping[float, Measurement]]
    """ln(R / R_reference) by pair and signal efficiency; of a group the mean of ln R."""
    seed_errors: Mapping[str, float]
    """Error of each of `figures` from the spread over seeds, where a group has several; else empty."""


@dataclass(frozen=True)
class SeedSpread:
    """Runs that differ in their seed only."""

    group: str
    """Name of the group."""
    runs: tuple[str, ...]
    """Names of its runs."""
    figures: Mapping[str, Floats]
    """Values by figure, one a run: `auc`, `accuracy`, …, `rejection Top_vs_QCD 0.3`."""


@dataclass(frozen=True)
class Evaluation:
    """Several runs side by side."""

    results: tuple[Result, ...]
    """In the order given."""
    differences: tuple[Difference, ...]
    """To the reference; empty for one run, or where runs saw different jets."""
    seeds: tuple[SeedSpread, ...]
    """Groups with at least two runs."""
    bootstrap_errors: Mapping[str, Mapping[str, float]]
    """By run, then figure (`auc`, …, `log_rejection Top_vs_QCD 0.3`): fluctuations of the test sample,
    those of the threshold included."""
    settings: EvaluationSection
    """What was asked for."""
    notes: tuple[str, ...]
    """What a reader must know of the comparison."""
