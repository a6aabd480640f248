"""How well each target is regressed, and whether the errors that are given mean what they say.

Shapes: N jets, K bins.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jettagger import metrics
from jettagger.evaluation.predictions import Predictions
from jettagger.metrics import Histogram, Measurement, Pulls, Residuals
from jettagger.uncertainty.regression import TargetPrediction

Floats = NDArray[np.float64]
BINS = 60
WIDEST = 5.0
"""Residuals are drawn up to so many resolutions, pulls up to so many standard deviations."""


@dataclass(frozen=True)
class TargetResult:
    """One target of one run on one test sample."""

    name: str
    """Of the target."""
    n_jets: int
    """Jets whose truth is known."""
    residuals: Residuals
    """Of prediction - truth."""
    error: str | None
    """What the pulls are taken with: `learned` (with the spread between networks), `spread` alone; None for none."""
    pulls: Pulls | None
    """None where no error is given."""
    quantile_coverage: Mapping[float, Measurement]
    """By level: fraction of jets whose truth lies below that quantile; empty where there are none."""
    interval_coverage: Mapping[float, Measurement]
    """By the difference of two levels q and 1 - q: fraction of jets between these quantiles."""
    residual_spectrum: Histogram
    """Up to WIDEST resolutions around the bias."""
    pull_spectrum: Histogram | None
    """Up to WIDEST."""


def regression(predictions: Predictions) -> tuple[TargetResult, ...]:
    """The figures of each target of a run; those without a known truth are left out."""
    found = []
    for name, predicted in predictions.targets.items():
        truth_N = np.asarray(predictions.truths[name], np.float64)
        known_N = np.flatnonzero(np.isfinite(truth_N))
        if known_N.size and predictions.weights_N[known_N].sum() > 0:
            known = predicted.at(known_N)
            found.append(_measured(name, known, truth_N[known_N], predictions.weights_N[known_N]))
    return tuple(found)


def _measured(name: str, predicted: TargetPrediction, truth_N: Floats, weights_N: Floats) -> TargetResult:
    residual_N = predicted.value_N - truth_N
    residuals = metrics.residuals(residual_N, weights_N)
    kind, error_N = _error(predicted)
    pull_N = None
    if error_N is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            pull_N = np.where(residual_N == 0, 0.0, residual_N / error_N)
        pull_N = np.clip(pull_N, -1e6, 1e6)
    width = WIDEST * (residuals.resolution.value or 1.0)
    edges = residuals.bias.value + np.linspace(-width, width, BINS + 1)
    below, between = _quantiles(predicted, truth_N, weights_N)
    return TargetResult(
        name=name,
        n_jets=len(truth_N),
        residuals=residuals,
        error=kind,
        pulls=None if pull_N is None else metrics.pulls(pull_N, weights_N),
        quantile_coverage=below,
        interval_coverage=between,
        residual_spectrum=metrics.histogram(residual_N, edges, weights_N),
        pull_spectrum=None
        if pull_N is None
        else metrics.histogram(pull_N, np.linspace(-WIDEST, WIDEST, BINS + 1), weights_N),
    )


def _error(predicted: TargetPrediction) -> tuple[str | None, Floats | None]:
    """A learned error; else the spread between networks, where there are several. Quantiles speak for themselves."""
    if predicted.error_N is not None:
        return "learned", predicted.error_N
    if predicted.samples > 1 and predicted.quantiles_NQ is None:
        return "spread", predicted.std_N
    return None, None


def _quantiles(
    predicted: TargetPrediction, truth_N: Floats, weights_N: Floats
) -> tuple[dict[float, Measurement], dict[float, Measurement]]:
    if predicted.quantiles_NQ is None:
        return {}, {}
    columns = dict(zip(predicted.levels, predicted.quantiles_NQ.T, strict=True))
    below = {
        level: metrics.efficiency(truth_N < quantile_N, weights_N) for level, quantile_N in columns.items()
    }
    between = {}
    for low in columns:
        for high in columns:
            if low < 0.5 and abs(low + high - 1) < 1e-9:
                inside_N = (truth_N >= columns[low]) & (truth_N < columns[high])
                between[round(high - low, 9)] = metrics.efficiency(inside_N, weights_N)
    return below, between
