"""Whether an uncertainty finds the mistakes: error against coverage, misclassification AUC.

Shapes: N jets, G points. `wrong_N` is true where the most probable class is not the true one.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jettagger.metrics.counting import Floats, Measurement, unit_weights
from jettagger.metrics.ranking import auc, rank, rankable


class RiskCoverage(NamedTuple):
    """Error among the jets that are kept, the most certain first."""

    coverage_G: Floats
    """Fraction of the total weight that is kept, ascending to 1."""
    risk_G: Floats
    """Weighted fraction of wrong jets among the kept ones."""
    area: float
    """AURC: the mean over jets of the risk at the coverage that just includes them; small is good."""


def error_against_coverage(
    uncertainty_N: ArrayLike, wrong_N: ArrayLike, weights_N: ArrayLike | None = None
) -> RiskCoverage:
    """Keeps jets in order of rising uncertainty; jets of equal uncertainty are kept together."""
    uncertainty_N = np.asarray(uncertainty_N, np.float64)
    order_N = np.argsort(uncertainty_N, kind="stable")
    sorted_N = uncertainty_N[order_N]
    w_N = unit_weights(weights_N, len(sorted_N))[order_N]
    kept_N = np.cumsum(w_N)
    wrong = np.cumsum(w_N * np.asarray(wrong_N, bool)[order_N])
    end_G = np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True))
    step_G = np.diff(kept_N[end_G], prepend=0.0)
    risk_G = np.divide(wrong[end_G], kept_N[end_G], out=np.zeros(len(end_G)), where=kept_N[end_G] != 0)
    return RiskCoverage(kept_N[end_G] / kept_N[-1], risk_G, float(step_G @ risk_G / kept_N[-1]))


def risk_at_coverage(curve: RiskCoverage, coverage: ArrayLike) -> Floats:
    """The risk at the first point of the curve that keeps at least `coverage`."""
    at = np.searchsorted(np.maximum.accumulate(curve.coverage_G), np.asarray(coverage) * (1 - 1e-12))
    result: Floats = curve.risk_G[np.minimum(at, len(curve.risk_G) - 1)]
    return result


def misclassification_auc(
    uncertainty_N: ArrayLike, wrong_N: ArrayLike, weights_N: ArrayLike | None = None
) -> Measurement:
    """P(a wrong jet is more uncertain than a right one); NaN if all or none are wrong, 0.5 is no help."""
    wrong_N = np.asarray(wrong_N, bool)
    weights_N = unit_weights(weights_N, len(wrong_N))
    if not rankable(wrong_N, weights_N):
        return Measurement(np.nan, np.nan)
    return auc(rank(uncertainty_N, wrong_N, weights_N))
