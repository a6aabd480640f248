"""Weighted counts and their errors: means, efficiencies, histograms, quantiles, accuracy, confusion.

Shapes: N jets, C classes, K bins.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
_ROUNDING = 1e-9
"""Of a figure in [0, 1], such as an AUC."""


class Measurement(NamedTuple):
    """A figure and its statistical error, in the same unit; NaN where it is not defined."""

    value: float
    """Central value."""
    error: float
    """One standard deviation."""


class Efficiency(NamedTuple):
    """Weighted fractions with 68 % Wilson intervals; each array has one entry a bin."""

    value: Floats
    """Passed over all; NaN in an empty bin."""
    low: Floats
    """Lower end of the interval, in [0, 1]."""
    high: Floats
    """Upper end of the interval, in [0, 1]."""
    entries: Floats
    """Effective entries of the bin."""


class Histogram(NamedTuple):
    """Sums of weights between edges; what lies outside is not counted."""

    edges: Floats
    """K + 1 edges, ascending; the last bin contains its upper edge."""
    sumw: Floats
    """Sum of weights in each bin."""
    sumw2: Floats
    """Sum of squared weights: the variance of `sumw`."""

    def normalised(self) -> tuple[Floats, Floats]:
        """Density that integrates to 1 and its error; zeros if the histogram sums to 0."""
        total = self.sumw.sum()
        scale = np.diff(self.edges) * (total if total != 0 else np.inf)
        return self.sumw / scale, np.sqrt(self.sumw2) / np.abs(scale)


class Confusion(NamedTuple):
    """Rows: true class. Columns: predicted class."""

    counts_CC: Floats
    """Sums of weights."""
    fraction_CC: Floats
    """Each row divided by its sum; NaN for a class without jets."""
    error_CC: Floats
    """Half the 68 % Wilson interval of the fraction."""


def unit_weights(weights_N: ArrayLike | None, count: int) -> Floats:
    """The weights as float64, or ones."""
    return np.ones(count) if weights_N is None else np.asarray(weights_N, np.float64)


def effective_entries(weights_N: ArrayLike) -> float:
    """Kish's (sum w)^2 / sum w^2: as many unweighted jets have the same relative error. 0 for none."""
    weights_N = np.asarray(weights_N, np.float64)
    squares = float((weights_N**2).sum())
    return float(weights_N.sum()) ** 2 / squares if squares > 0 else 0.0


def outside(values: ArrayLike, low: float = 0.0, high: float = 1.0) -> Bools:
    """Which figures lie outside [low, high], by more than rounding; NaN does not."""
    values = np.asarray(values, np.float64)
    return (values < low - _ROUNDING) | (values > high + _ROUNDING)


def beyond(name: str, value: float, low: float = 0.0, high: float = 1.0) -> str | None:
    """What is to be said of a figure that event weights of one sign keep within [low, high]; None where it is."""
    if not outside(value, low, high):
        return None
    limits = f"outside {low:g} to {high:g}" if np.isfinite(high) else f"below {low:g}"
    return (
        f"{name} is {value:.6g}, {limits}: negative event weights outweigh the others among part of the jets; it is"
        " given as it comes out, not clipped"
    )


def weighted_mean(values_N: ArrayLike, weights_N: ArrayLike | None = None) -> Measurement:
    """sum wx / sum w with the error sqrt(sum w^2 (x - mean)^2) / sum w, times sqrt(n / (n - 1))."""
    values_N = np.asarray(values_N, np.float64)
    weights_N = unit_weights(weights_N, len(values_N))
    total = weights_N.sum()
    if total == 0:
        return Measurement(np.nan, np.nan)
    mean = float(weights_N @ values_N / total)
    entries = effective_entries(weights_N)
    if entries <= 1:
        return Measurement(mean, np.nan)
    variance = float((weights_N**2) @ (values_N - mean) ** 2) / total**2
    return Measurement(mean, float(np.sqrt(variance * entries / (entries - 1))))


def wilson(fraction: ArrayLike, entries: ArrayLike, z: float = 1.0) -> tuple[Floats, Floats]:
    """Wilson's score interval (doi:10.1080/01621459.1927.10502953), z standard deviations.

    It stays in [0, 1] and has a width even at 0 and 1, where the naive binomial error vanishes. A fraction
    outside [0, 1] (negative weights) is clipped for the interval. No entries: [0, 1].
    """
    p = np.clip(np.asarray(fraction, np.float64), 0.0, 1.0)
    n = np.asarray(entries, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    known = np.isfinite(centre) & np.isfinite(half)
    low = np.where(known, np.minimum(np.clip(centre - half, 0.0, 1.0), p), 0.0)
    high = np.where(known, np.maximum(np.clip(centre + half, 0.0, 1.0), p), 1.0)
    return low, high


def efficiency(passed_N: ArrayLike, weights_N: ArrayLike | None = None) -> Measurement:
    """Weighted fraction that passed; the error is half the 68 % Wilson interval, so that it is never 0."""
    passed_N = np.asarray(passed_N, bool)
    edges = np.array([-0.5, 0.5])
    one = efficiency_in_bins(np.zeros(len(passed_N)), edges, passed_N, weights_N)
    return Measurement(float(one.value[0]), float(one.high[0] - one.low[0]) / 2)


def efficiency_in_bins(
    values_N: ArrayLike, edges: ArrayLike, passed_N: ArrayLike, weights_N: ArrayLike | None = None
) -> Efficiency:
    """Fraction that passed in each bin of `values_N`, with 68 % Wilson intervals.

    The interval uses the number of entries that gives the weighted variance
    [(1-p)^2 sum_pass w^2 + p^2 sum_fail w^2] / (sum w)^2, hence n itself for equal weights.
    """
    passed_N = np.asarray(passed_N, bool)
    weights_N = unit_weights(weights_N, len(passed_N))
    everyone = histogram(values_N, edges, weights_N)
    passing = histogram(values_N, edges, weights_N * passed_N)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(everyone.sumw != 0, passing.sumw / everyone.sumw, np.nan)
    return _with_interval(p, everyone, passing.sumw2)


def _with_interval(p: Floats, everyone: Histogram, passing_sumw2: Floats) -> Efficiency:
    with np.errstate(divide="ignore", invalid="ignore"):
        kish = np.where(everyone.sumw2 > 0, everyone.sumw**2 / everyone.sumw2, 0.0)
        failing_sumw2 = np.maximum(everyone.sumw2 - passing_sumw2, 0.0)
        variance = ((1 - p) ** 2 * passing_sumw2 + p**2 * failing_sumw2) / everyone.sumw**2
        binomial = p * (1 - p) / variance
    entries = np.where((binomial > 0) & np.isfinite(binomial), binomial, kish)
    low, high = wilson(p, entries)
    return Efficiency(p, low, high, kish)


def histogram(values_N: ArrayLike, edges: ArrayLike, weights_N: ArrayLike | None = None) -> Histogram:
    """Sums of weights and of squared weights between `edges`; NaN and what lies outside are left out."""
    values_N = np.asarray(values_N, np.float64)
    edges = np.asarray(edges, np.float64)
    weights_N = unit_weights(weights_N, len(values_N))
    inside_N = (values_N >= edges[0]) & (values_N <= edges[-1])
    bin_N = np.clip(np.searchsorted(edges, values_N[inside_N], side="right") - 1, 0, len(edges) - 2)
    inside_weights = weights_N[inside_N]
    bins = len(edges) - 1
    return Histogram(edges, sums(bin_N, inside_weights, bins), sums(bin_N, inside_weights**2, bins))


def sums(bin_N: Integers, weights_N: Floats, bins: int) -> Floats:
    """Sum of the weights in each of `bins` bins, float64 whatever the weights."""
    return np.asarray(np.bincount(bin_N, weights_N, bins), np.float64)


def quantile(values_N: ArrayLike, fraction: ArrayLike, weights_N: ArrayLike | None = None) -> Floats:
    """The smallest value whose cumulative weight reaches `fraction` of the total; NaN without jets.

    NumPy's `inverted_cdf` for equal weights. With negative weights: where it is first reached from below.
    """
    values_N = np.asarray(values_N, np.float64)
    wanted = np.asarray(fraction, np.float64)
    if len(values_N) == 0:
        return np.full(wanted.shape, np.nan)
    order_N = np.argsort(values_N, kind="stable")
    cumulative_N = np.cumsum(unit_weights(weights_N, len(values_N))[order_N])
    total = cumulative_N[-1]
    highest_N = np.maximum.accumulate(cumulative_N)
    at = np.searchsorted(highest_N, wanted * total * (1 - 1e-12), side="left")
    result: Floats = values_N[order_N][np.minimum(at, len(values_N) - 1)]
    return result


def accuracy(
    probabilities_NC: ArrayLike, labels_N: ArrayLike, weights_N: ArrayLike | None = None
) -> Measurement:
    """Weighted fraction whose most probable class is the true one, with its binomial (Wilson) error."""
    return efficiency(np.asarray(probabilities_NC).argmax(-1) == np.asarray(labels_N), weights_N)


def confusion(
    probabilities_NC: ArrayLike, labels_N: ArrayLike, weights_N: ArrayLike | None = None
) -> Confusion:
    """Which class (column, the most probable) the jets of a class (row) are taken for."""
    probabilities_NC = np.asarray(probabilities_NC)
    labels_N = np.asarray(labels_N, np.int64)
    classes = probabilities_NC.shape[1]
    weights_N = unit_weights(weights_N, len(labels_N))
    cell_N = labels_N * classes + probabilities_NC.argmax(-1)
    counts = sums(cell_N, weights_N, classes**2).reshape(classes, classes)
    squares = sums(cell_N, weights_N**2, classes**2).reshape(classes, classes)
    row, row2 = (np.repeat(a.sum(1, keepdims=True), classes, 1) for a in (counts, squares))
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction = np.where(row != 0, counts / row, np.nan)
    cells = _with_interval(fraction, Histogram(np.empty(0), row, row2), squares)
    error = np.where(row2 > 0, (cells.high - cells.low) / 2, np.nan)
    return Confusion(counts, fraction, error)
