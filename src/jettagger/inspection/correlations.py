"""Linear correlations, weighted, with errors, and whether two samples differ in them.

Shapes: J jets, V variables.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LARGEST = 0.9999
"""Correlations beyond it (a variable and its copy) are not compared: Fisher's z diverges."""


class Correlation(NamedTuple):
    """The correlation matrix of a sample."""

    names: tuple[str, ...]
    matrix_VV: Floats
    """Of the jets that have both values; NaN where a variable is constant."""
    z_error_VV: Floats
    """Standard error of Fisher's z = artanh(r); 1/√n for normal variables."""
    effective: float
    """Effective number of jets."""


class CorrelationGap(NamedTuple):
    """Two variables that are correlated differently in two samples."""

    first: str
    second: str
    reference: float
    other: float
    significance: float
    """(z₁ − z₂) over its error, signed."""


def correlation(names: Sequence[str], values_JV: NDArray[np.floating], weights_J: Floats) -> Correlation:
    """Weighted correlations, pair by pair over the jets where both values are finite.

    The error of z is that of its influence function, so it also holds for variables that are not normal.
    """
    x_JV = values_JV.astype(np.float64)
    known_JV = np.isfinite(x_JV)
    centre_V, scale_V = _standard(x_JV, known_JV)
    z_JV = np.where(known_JV, (np.where(known_JV, x_JV, 0.0) - centre_V) / scale_V, 0.0)
    known = known_JV.astype(np.float64)
    weighted = weights_J[:, None]
    sums, first = known.T @ (weighted * known), z_JV.T @ (weighted * known)
    second, mixed = (z_JV**2).T @ (weighted * known), z_JV.T @ (weighted * z_JV)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = second / sums - (first / sums) ** 2
        covariance = mixed / sums - first * first.T / sums**2
        matrix = covariance / np.sqrt(variance * variance.T)
        matrix[(variance <= 1e-12) | (variance.T <= 1e-12)] = np.nan
    matrix = np.clip(matrix, -1, 1)
    error = _z_error(z_JV, weights_J, sums, matrix)
    squares = float((weights_J**2).sum())
    effective = float(weights_J.sum()) ** 2 / squares if squares > 0 else 0.0
    return Correlation(tuple(names), matrix, error, effective)


def gaps(reference: Correlation, other: Correlation) -> list[CorrelationGap]:
    """All pairs of variables, the most significant difference first."""
    with np.errstate(invalid="ignore", divide="ignore"):
        z_1, z_2 = np.arctanh(reference.matrix_VV), np.arctanh(other.matrix_VV)
        significance = (z_2 - z_1) / np.hypot(reference.z_error_VV, other.z_error_VV)
    found = []
    for i, j in zip(*np.triu_indices(len(reference.names), 1), strict=True):
        pair = float(reference.matrix_VV[i, j]), float(other.matrix_VV[i, j])
        if np.isfinite(significance[i, j]) and max(abs(pair[0]), abs(pair[1])) < LARGEST:
            found.append(
                CorrelationGap(reference.names[i], reference.names[j], *pair, float(significance[i, j]))
            )
    return sorted(found, key=lambda gap: -abs(gap.significance))


def _standard(values_JV: Floats, known_JV: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Centres and scales that keep the powers below well-behaved."""
    count_V = np.maximum(known_JV.sum(0), 1)
    centre_V = np.where(known_JV, values_JV, 0.0).sum(0) / count_V
    spread_V = np.sqrt((np.where(known_JV, values_JV - centre_V, 0.0) ** 2).sum(0) / count_V)
    scale_V = np.where(spread_V > 0, spread_V, 1.0)
    return centre_V, scale_V


def _z_error(z_JV: Floats, weights_J: Floats, sums: Floats, r: Floats) -> Floats:
    """√Σw²φ² / Σw with φ = [xy − r (x² + y²) / 2] / (1 − r²), of standardised x and y."""
    squared = (weights_J**2)[:, None]
    total = weights_J.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_V = (weights_J @ z_JV) / total
        spread_V = np.sqrt(np.maximum((weights_J @ (z_JV - mean_V) ** 2) / total, 1e-30))
        x = np.where(z_JV == 0, 0.0, (z_JV - mean_V) / spread_V)
        m22 = (x**2).T @ (squared * x**2)
        m31 = (x**3).T @ (squared * x)
        m4 = (squared * x**4).sum(0)
        whole = m22 - r * (m31 + m31.T) + r**2 / 4 * (m4[:, None] + m4[None, :] + 2 * m22)
        error: Floats = np.sqrt(np.maximum(whole, 0.0)) / np.abs(sums) / (1 - r**2)
    return error
