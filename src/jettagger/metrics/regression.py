"""How well a number is predicted, and whether its error means what it says.

Shapes: N jets, Q quantiles.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jettagger.metrics.counting import (
    Measurement,
    effective_entries,
    efficiency,
    quantile,
    unit_weights,
    weighted_mean,
)

Floats = NDArray[np.float64]
ONE_SIGMA, TWO_SIDED_95 = 0.682689492137, 1.959963984540
"""Probability within one standard deviation of a Gaussian; standard deviations that hold 95 % of one."""
_LOW, _HIGH = 0.16, 0.84
_COMMON = math.sqrt(_LOW * (1 - _HIGH) / (_HIGH * (1 - _LOW)))
"""Correlation of the two quantiles of a sample."""


class Residuals(NamedTuple):
    """Of prediction - truth, in the target's units."""

    bias: Measurement
    """Weighted mean."""
    resolution: Measurement
    """Half the width of the central 68 %."""
    rmse: Measurement
    """Root of the weighted mean of squares."""


class Pulls(NamedTuple):
    """Of (prediction - truth) / error."""

    mean: Measurement
    """0 where errors are right."""
    width: Measurement
    """Standard deviation; 1 where errors are right, larger where they are too small."""
    coverage_68: Measurement
    """Fraction of jets within one error; 0.683 for a Gaussian."""
    coverage_95: Measurement
    """Within 1.96 errors."""


def residuals(residual_N: ArrayLike, weights_N: ArrayLike | None = None) -> Residuals:
    """The figures of residuals, which are finite; NaN where the weights have no positive sum."""
    r_N = np.asarray(residual_N, np.float64)
    squares = weighted_mean(r_N**2, weights_N)
    # Weights may be negative, and the mean of squares with them.
    rmse = math.sqrt(squares.value) if squares.value > 0 else (0.0 if squares.value == 0 else math.nan)
    error = squares.error / (2 * rmse) if rmse > 0 else math.nan
    return Residuals(weighted_mean(r_N, weights_N), central_width(r_N, weights_N), Measurement(rmse, error))


def pulls(pull_N: ArrayLike, weights_N: ArrayLike | None = None) -> Pulls:
    """The figures of pulls, which are finite."""
    x_N = np.asarray(pull_N, np.float64)
    return Pulls(
        weighted_mean(x_N, weights_N),
        standard_deviation(x_N, weights_N),
        efficiency(np.abs(x_N) <= 1, weights_N),
        efficiency(np.abs(x_N) <= TWO_SIDED_95, weights_N),
    )


def central_width(values_N: ArrayLike, weights_N: ArrayLike | None = None) -> Measurement:
    """Half the width of the central 68 %; the error is that of the two quantiles, which are correlated."""
    x_N = np.asarray(values_N, np.float64)
    w_N = unit_weights(weights_N, len(x_N))
    entries = effective_entries(w_N)
    if not w_N.sum() > 0 or not entries > 0:
        return Measurement(math.nan, math.nan)
    step = math.sqrt(_LOW * (1 - _LOW) / entries)
    levels = [max(_LOW - step, 0.0), _LOW, min(_LOW + step, 0.5), max(_HIGH - step, 0.5), _HIGH]
    below, low, above, under, high, over = quantile(x_N, [*levels, min(_HIGH + step, 1.0)], w_N)
    of_low, of_high = (above - below) / 2, (over - under) / 2
    error = math.sqrt(max(of_low**2 + of_high**2 - 2 * _COMMON * of_low * of_high, 0.0)) / 2
    return Measurement(float(high - low) / 2, error)


def standard_deviation(values_N: ArrayLike, weights_N: ArrayLike | None = None) -> Measurement:
    """Weighted, about the weighted mean; its error follows from the fourth moment."""
    x_N = np.asarray(values_N, np.float64)
    centre = weighted_mean(x_N, weights_N).value
    squares = weighted_mean((x_N - centre) ** 2, weights_N)
    if not squares.value > 0:
        return Measurement(0.0 if squares.value == 0 else math.nan, math.nan)
    width = math.sqrt(squares.value)
    return Measurement(width, squares.error / (2 * width))
