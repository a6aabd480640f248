"""Whether probabilities mean what they say: likelihood, Brier score, calibration errors and curves.

Shapes: N jets, C classes, K bins. Bins are (lower, upper], the first one contains 0.
"""

from math import erf
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jettagger.metrics.counting import (
    Bools,
    Floats,
    Integers,
    Measurement,
    quantile,
    sums,
    unit_weights,
    weighted_mean,
    wilson,
)

BINS = 15
"""Equal-width bins of a calibration error, the usual number (arXiv:1706.04599)."""


class CalibrationCurve(NamedTuple):
    """Observed against predicted, one entry a bin that holds jets."""

    predicted_K: Floats
    """Weighted mean probability."""
    observed_K: Floats
    """Weighted fraction for which it came true."""
    low_K: Floats
    """Lower end of its 68 % Wilson interval."""
    high_K: Floats
    """Upper end of its 68 % Wilson interval."""
    weight_K: Floats
    """Fraction of the total weight."""


def nll(probabilities_NC: ArrayLike, labels_N: ArrayLike, weights_N: ArrayLike | None = None) -> Measurement:
    """-sum w ln p(true class) / sum w, nats; p below 2.2e-16 counts as 2.2e-16, as scikit-learn has it."""
    p_NC = np.asarray(probabilities_NC, np.float64)
    p_N = np.take_along_axis(p_NC, np.asarray(labels_N, np.int64)[:, None], 1)[:, 0]
    return weighted_mean(-np.log(np.clip(p_N, np.finfo(np.float64).eps, 1.0)), weights_N)


def brier(
    probabilities_NC: ArrayLike, labels_N: ArrayLike, weights_N: ArrayLike | None = None
) -> Measurement:
    """Mean of sum_k (p_k - y_k)^2 over all classes, in [0, 2]; for two classes twice (p_1 - y_1)^2."""
    p_NC = np.asarray(probabilities_NC, np.float64)
    return weighted_mean(((p_NC - _one_hot(labels_N, p_NC.shape[1])) ** 2).sum(-1), weights_N)


def binary_ece(
    probability_N: ArrayLike, true_N: ArrayLike, weights_N: ArrayLike | None = None, bins: int = BINS
) -> Measurement:
    """sum_b abs(sum_b w (y - p)) / sum w, in equal-width bins of P(y = 1): the signal convention.

    Not the top-label convention, which bins max(p, 1 - p): the two differ (0.10 against 0.008 on the same
    data has been seen), so both are named wherever they are quoted.
    """
    p_N = np.asarray(probability_N, np.float64)
    return _ece(p_N, np.asarray(true_N, bool), weights_N, equal_width(p_N, bins), bins)


def top_label_ece(
    probabilities_NC: ArrayLike, labels_N: ArrayLike, weights_N: ArrayLike | None = None, bins: int = BINS
) -> Measurement:
    """Calibration error of the most probable class, in equal-width bins of its probability."""
    confidence_N, right_N = top_label(probabilities_NC, labels_N)
    return _ece(confidence_N, right_N, weights_N, equal_width(confidence_N, bins), bins)


def adaptive_ece(
    probabilities_NC: ArrayLike, labels_N: ArrayLike, weights_N: ArrayLike | None = None, bins: int = BINS
) -> Measurement:
    """The same in bins of equal weight, so that no bin is empty."""
    confidence_N, right_N = top_label(probabilities_NC, labels_N)
    inner = quantile(confidence_N, np.arange(1, bins) / bins, weights_N)
    return _ece(confidence_N, right_N, weights_N, np.searchsorted(inner, confidence_N), bins)


def classwise_ece(
    probabilities_NC: ArrayLike, labels_N: ArrayLike, weights_N: ArrayLike | None = None, bins: int = BINS
) -> Measurement:
    """Mean over classes of `binary_ece` of each P(class); the error takes the classes as fully correlated."""
    p_NC = np.asarray(probabilities_NC, np.float64)
    labels_N = np.asarray(labels_N)
    each = [binary_ece(p_NC[:, k], labels_N == k, weights_N, bins) for k in range(p_NC.shape[1])]
    return Measurement(
        float(np.mean([one.value for one in each])), float(np.mean([one.error for one in each]))
    )


def ece_floor(confidence_N: ArrayLike, weights_N: ArrayLike | None = None, bins: int = BINS) -> float:
    """The ECE that a perfectly calibrated tagger would show with these jets, from fluctuations alone.

    sum_b sqrt(2/pi) sqrt(sum_b w^2 p (1 - p)) / sum w: the mean of a folded normal in each bin.
    """
    p_N = np.asarray(confidence_N, np.float64)
    w_N = unit_weights(weights_N, len(p_N))
    variance_K = sums(equal_width(p_N, bins), w_N**2 * p_N * (1 - p_N), bins)
    return float(np.sqrt(2 / np.pi) * np.sqrt(variance_K).sum() / abs(w_N.sum()))


def calibration_curve(
    probability_N: ArrayLike, true_N: ArrayLike, weights_N: ArrayLike | None = None, bins: int = BINS
) -> CalibrationCurve:
    """Observed fraction against predicted probability in equal-width bins; empty bins are left out."""
    p_N = np.asarray(probability_N, np.float64)
    w_N = unit_weights(weights_N, len(p_N))
    bin_N = equal_width(p_N, bins)
    w_K, w2_K, wp_K, wy_K = (
        sums(bin_N, values, bins) for values in (w_N, w_N**2, w_N * p_N, w_N * np.asarray(true_N, bool))
    )
    kept = w_K > 0
    observed_K = wy_K[kept] / w_K[kept]
    low_K, high_K = wilson(observed_K, w_K[kept] ** 2 / w2_K[kept])
    return CalibrationCurve(wp_K[kept] / w_K[kept], observed_K, low_K, high_K, w_K[kept] / w_K.sum())


def top_label(probabilities_NC: ArrayLike, labels_N: ArrayLike) -> tuple[Floats, Bools]:
    """Probability of the most probable class, and whether it is the true one."""
    p_NC = np.asarray(probabilities_NC, np.float64)
    return p_NC.max(-1), p_NC.argmax(-1) == np.asarray(labels_N)


def equal_width(probability_N: Floats, bins: int = BINS) -> Integers:
    """Index of the bin (lower, upper] of [0, 1] that each probability lies in."""
    return np.asarray(np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], probability_N), np.int64)


def _ece(p_N: Floats, true_N: Bools, weights_N: ArrayLike | None, bin_N: Integers, bins: int) -> Measurement:
    w_N = unit_weights(weights_N, len(p_N))
    total = abs(w_N.sum())
    if total == 0:
        return Measurement(np.nan, np.nan)
    gap_K = sums(bin_N, w_N * (true_N - p_N), bins) / total
    variance_K = sums(bin_N, w_N**2 * p_N * (1 - p_N), bins) / total**2
    return Measurement(float(np.abs(gap_K).sum()), float(np.sqrt(_folded_variance(gap_K, variance_K).sum())))


def _folded_variance(mean_K: Floats, variance_K: Floats) -> Floats:
    """Variance of abs(x) for a normal x: that of x far from 0, (1 - 2/pi) of it at 0."""
    sigma_K = np.sqrt(variance_K)
    ratio_K = np.divide(mean_K, sigma_K, out=np.full_like(mean_K, np.inf), where=sigma_K > 0)
    erf_K = np.array([erf(ratio / np.sqrt(2)) for ratio in ratio_K])
    folded_K = sigma_K * np.sqrt(2 / np.pi) * np.exp(-(ratio_K**2) / 2) + np.where(
        sigma_K > 0, mean_K * erf_K, np.abs(mean_K)
    )
    variance: Floats = np.maximum(mean_K**2 + variance_K - folded_K**2, 0.0)
    return variance


def _one_hot(labels_N: ArrayLike, classes: int) -> Floats:
    return np.eye(classes)[np.asarray(labels_N, np.int64)]
