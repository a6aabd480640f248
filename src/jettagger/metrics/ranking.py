"""What follows from the order of the scores: exact step ROC, AUC, rejection, working points.

Shapes: N jets, S signal jets, B background jets, G points of a grid, T thresholds.

A jet passes a threshold t when its score >= t; jets of equal score pass together. A working point "signal
efficiency e" has the highest threshold at which the weighted efficiency is at least e: the step is not
interpolated, and the efficiency that is reached is given beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jettagger.errors import JettaggerError
from jettagger.metrics.counting import Floats, Integers, Measurement, effective_entries, unit_weights

LIMIT_CONFIDENCE = 0.6827
"""Confidence level of the lower limit of a rejection that no background jet measures."""
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Ranking:
    """Scores sorted once; every ROC figure and every bootstrap replica is read from it."""

    jets: int
    """N, jets that the indices below point into."""
    signal_S: Integers
    """Indices of the signal jets, highest score first."""
    background_B: Integers
    """Indices of the background jets, highest score first."""
    signal_score_S: Floats
    """Scores in that order."""
    background_score_B: Floats
    """Scores in that order."""
    signal_weight_S: Floats
    """Event weights in that order."""
    background_weight_B: Floats
    """Event weights in that order."""
    signal_above_B: Integers
    """Number of signal jets that score higher than each background jet."""
    signal_from_B: Integers
    """Number of signal jets that score as high or higher."""
    background_above_S: Integers
    """Number of background jets that score higher than each signal jet."""
    background_from_S: Integers
    """Number of background jets that score as high or higher."""


class Roc(NamedTuple):
    """The exact step ROC: one point for each distinct score, highest first, after the point (0, 0)."""

    threshold_T: Floats
    """A jet passes at score >= threshold; +inf for the point (0, 0)."""
    signal_efficiency_T: Floats
    """Weighted fraction of the signal that passes."""
    background_efficiency_T: Floats
    """Weighted fraction of the background that passes."""


class RocPoints(NamedTuple):
    """The ROC at wanted signal efficiencies; each array has one entry a wanted efficiency."""

    threshold_G: Floats
    """A jet passes at score >= threshold."""
    signal_efficiency_G: Floats
    """The efficiency reached, at least the one wanted."""
    background_efficiency_G: Floats
    """Weighted fraction of the background that passes."""
    background_error_G: Floats
    """Its binomial error, sqrt((1-e)^2 sum_pass w^2 + e^2 sum_fail w^2) / sum w."""


class Rejection(NamedTuple):
    """1 / background efficiency at a signal efficiency."""

    value: float | None
    """Null where no background jet (or no positive weight) is left."""
    error: float | None
    """Binomial: R sqrt((1 - e_b) / (n e_b)) for equal weights; the threshold counts as given."""
    lower_limit: float | None
    """68 % CL lower limit where `value` is null: 1 / (1 - 0.32**(1/n)) with n effective background jets."""
    threshold: float
    """A jet passes at score >= threshold."""
    signal_efficiency: float
    """The efficiency reached, at least the one wanted."""
    background_efficiency: float
    """Weighted fraction of the background that passes."""


def rank(scores_N: ArrayLike, signal_N: ArrayLike, weights_N: ArrayLike | None = None) -> Ranking:
    """Sorts the jets; `signal_N` is true for signal. Scores may be infinite, never NaN."""
    scores_N = np.asarray(scores_N, np.float64)
    signal_N = np.asarray(signal_N, bool)
    weights_N = unit_weights(weights_N, len(scores_N))
    if (broken := int(np.isnan(scores_N).sum())) > 0:
        raise JettaggerError(f"{broken} of {len(scores_N)} scores are NaN")
    sides = []
    for name, side_N in (("signal", signal_N), ("background", ~signal_N)):
        if not weights_N[side_N].sum() > 0:
            raise JettaggerError(f"no {name} jets, or their weights do not sum to more than 0")
        index = np.flatnonzero(side_N)
        sides.append(index[np.argsort(-scores_N[index], kind="stable")])
    signal_S, background_B = sides
    # Negated scores ascend, as searchsorted wants it.
    s, b = -scores_N[signal_S], -scores_N[background_B]
    return Ranking(
        jets=len(scores_N),
        signal_S=signal_S,
        background_B=background_B,
        signal_score_S=-s,
        background_score_B=-b,
        signal_weight_S=weights_N[signal_S],
        background_weight_B=weights_N[background_B],
        signal_above_B=np.searchsorted(s, b, side="left"),
        signal_from_B=np.searchsorted(s, b, side="right"),
        background_above_S=np.searchsorted(b, s, side="left"),
        background_from_S=np.searchsorted(b, s, side="right"),
    )


def rankable(signal_N: ArrayLike, weights_N: ArrayLike | None = None) -> bool:
    """Whether signal and background both have weights that sum to more than 0: without them nothing is ranked."""
    signal_N = np.asarray(signal_N, bool)
    weights_N = unit_weights(weights_N, len(signal_N))
    return bool(weights_N[signal_N].sum() > 0 and weights_N[~signal_N].sum() > 0)


def roc(ranking: Ranking) -> Roc:
    """The exact step ROC of all distinct scores."""
    score_T = np.unique(np.concatenate([ranking.signal_score_S, ranking.background_score_B]))[::-1]
    passing_s = np.searchsorted(-ranking.signal_score_S, -score_T, side="right")
    passing_b = np.searchsorted(-ranking.background_score_B, -score_T, side="right")
    signal, background = cumulative(ranking.signal_weight_S), cumulative(ranking.background_weight_B)
    return Roc(
        threshold_T=np.concatenate([[np.inf], score_T]),
        signal_efficiency_T=np.concatenate([[0.0], signal[passing_s] / signal[-1]]),
        background_efficiency_T=np.concatenate([[0.0], background[passing_b] / background[-1]]),
    )


def auc_influence(ranking: Ranking) -> tuple[float, Floats]:
    """AUC and each jet's first-order influence on it, (N,); the sum of their squares is its variance.

    AUC = P(signal scores higher) + P(equal) / 2, weighted: the area under the trapezoids of the merged ties.
    Negative weights that outweigh the others above some score may bring it outside [0, 1]: see `beyond`.
    The influences are DeLong's placement values (doi:10.2307/2531595), weighted; 0 for jets of other classes.
    """
    w_S, w_B = ranking.signal_weight_S, ranking.background_weight_B
    signal, background = cumulative(w_S), cumulative(w_B)
    place_B = (signal[ranking.signal_above_B] + signal[ranking.signal_from_B]) / (2 * signal[-1])
    place_S = 1 - (background[ranking.background_above_S] + background[ranking.background_from_S]) / (
        2 * background[-1]
    )
    area = float(w_B @ place_B / background[-1])
    influence_N = np.zeros(ranking.jets)
    for index, weight, place in (
        (ranking.signal_S, w_S, place_S),
        (ranking.background_B, w_B, place_B),
    ):
        entries = effective_entries(weight)
        unbias = np.sqrt(entries / (entries - 1)) if entries > 1 else np.nan
        influence_N[index] = weight * (place - area) / weight.sum() * unbias
    return area, influence_N


def auc(ranking: Ranking) -> Measurement:
    """Weighted area under the ROC with DeLong's error; the error is NaN with fewer than two jets a side."""
    area, influence_N = auc_influence(ranking)
    return Measurement(area, float(np.sqrt((influence_N**2).sum())))


def macro_auc(rankings: Sequence[Ranking]) -> Measurement:
    """Mean AUC of several rankings of the same jets, such as each class against the rest."""
    areas, influences = zip(*(auc_influence(ranking) for ranking in rankings), strict=True)
    influence_N = np.mean(influences, axis=0)
    return Measurement(float(np.mean(areas)), float(np.sqrt((influence_N**2).sum())))


def roc_points(ranking: Ranking, signal_efficiency: ArrayLike) -> RocPoints:
    """The ROC at wanted signal efficiencies, each in (0, 1]."""
    wanted_G = np.atleast_1d(np.asarray(signal_efficiency, np.float64))
    signal, background = cumulative(ranking.signal_weight_S), cumulative(ranking.background_weight_B)
    at_G = first_reaching(signal[1:], wanted_G)
    threshold_G = ranking.signal_score_S[at_G]
    # All jets that score like the one at the threshold pass with it.
    passing_G = np.searchsorted(-ranking.signal_score_S, -threshold_G, side="right")
    survivors_G = ranking.background_from_S[at_G]
    e_G = background[survivors_G] / background[-1]
    squares = cumulative(ranking.background_weight_B**2)
    passed2_G, failed2_G = squares[survivors_G], squares[-1] - squares[survivors_G]
    error_G = np.sqrt((1 - e_G) ** 2 * passed2_G + e_G**2 * np.maximum(failed2_G, 0.0)) / background[-1]
    return RocPoints(threshold_G, signal[passing_G] / signal[-1], e_G, error_G)


def rejection(ranking: Ranking, signal_efficiency: float) -> Rejection:
    """Background rejection at a signal efficiency in (0, 1], with its binomial error or a lower limit."""
    points = roc_points(ranking, signal_efficiency)
    threshold, reached, e_b, error = (float(array[0]) for array in points)
    if e_b > 0:
        return Rejection(1 / e_b, error / e_b**2, None, threshold, reached, e_b)
    entries = max(effective_entries(ranking.background_weight_B), 1.0)
    limit = 1 / (1 - (1 - LIMIT_CONFIDENCE) ** (1 / entries))
    return Rejection(None, None, limit, threshold, reached, e_b)


def significance_improvement(points: RocPoints) -> tuple[Floats, Floats]:
    """e_s / sqrt(e_b), by which a cut multiplies S / sqrt(B), and its error; NaN without background."""
    e_b = np.where(points.background_efficiency_G > 0, points.background_efficiency_G, np.nan)
    improvement_G = points.signal_efficiency_G / np.sqrt(e_b)
    return improvement_G, improvement_G * points.background_error_G / (2 * e_b)


def cumulative(weights: NDArray[np.floating]) -> Floats:
    """0, w_0, w_0 + w_1, …, along the last axis."""
    sums = np.zeros((*weights.shape[:-1], weights.shape[-1] + 1))
    np.cumsum(weights, axis=-1, out=sums[..., 1:])
    return sums


def first_reaching(cumulative_S: Floats, fraction_G: Floats) -> Integers:
    """Index at which a cumulative weight first reaches each fraction of its total."""
    highest_S = np.maximum.accumulate(cumulative_S)
    # A rounding error of the sum must not cost a whole step.
    at_G = np.searchsorted(highest_S, fraction_G * cumulative_S[-1] * (1 - _ROUNDING), side="left")
    return np.asarray(np.minimum(at_G, len(cumulative_S) - 1), np.int64)
