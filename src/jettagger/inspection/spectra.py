"""Distributions: one histogram a variable and class, weighted, with statistical errors.

Shapes: J jets, R rows (jets or particles), B bins, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.inspection.kept import Kept

Floats = NDArray[np.float64]
BINS = 40
DISCRETE = 25
"""A variable with at most as many different values has a bin for each."""
TAIL = 0.001
"""Fraction of the values that may lie outside of the drawn range, on either side."""


class Values(NamedTuple):
    """One variable of some jets or particles."""

    name: str
    values_R: Floats
    weights_R: Floats
    jet_R: NDArray[np.int64] | None
    """The jet of each particle; None where a row is a jet."""


class Counts(NamedTuple):
    """A weighted histogram."""

    sumw_B: Floats
    error_B: Floats
    """√Σw², over jets: the particles of a jet are not independent of each other."""
    total: float
    """Sum of weights of all finite values, also of those outside of the range."""


class Spectrum(NamedTuple):
    """A variable's distributions for all classes."""

    name: str
    level: str
    """`jet`, `particle` or `target`."""
    edges: Floats
    density: dict[str, Floats]
    """By class: normalised to 1 over the whole range, per unit of the variable."""
    error: dict[str, Floats]
    outside: dict[str, float]
    """By class: fraction of the weights outside of the range."""
    missing: dict[str, float]
    """By class: fraction of the values that are NaN or infinite."""


def spectra(samples: Mapping[str, Sequence[Values]], level: str) -> list[Spectrum]:
    """The distributions of each variable; all classes have the same variables."""
    named = list(samples.items())
    found = []
    for position, first in enumerate(named[0][1]) if named else ():
        of_class = {name: values[position] for name, values in named}
        found.append(_spectrum(first.name, level, of_class))
    return found


def _spectrum(name: str, level: str, of_class: Mapping[str, Values]) -> Spectrum:
    edges = edges_of([values.values_R for values in of_class.values()])
    density, error, outside, missing = {}, {}, {}, {}
    for label, values in of_class.items():
        counts = count(values, edges)
        scale = counts.total * np.diff(edges) if counts.total else np.full(len(edges) - 1, np.nan)
        density[label], error[label] = counts.sumw_B / scale, counts.error_B / np.abs(scale)
        outside[label] = 1 - float(counts.sumw_B.sum()) / counts.total if counts.total else np.nan
        known = np.isfinite(values.values_R)
        missing[label] = 1 - float(known.mean()) if len(known) else np.nan
    return Spectrum(name, level, edges, density, error, outside, missing)


def edges_of(parts: Sequence[Floats]) -> Floats:
    """Bins for several samples together: one a value for discrete variables, else the bulk in equal bins.

    Bins of whole numbers hold equally many of them each.
    """
    values_R = np.concatenate([part[np.isfinite(part)] for part in parts])
    if not len(values_R):
        return np.array([0.0, 1.0])
    different = np.unique(values_R)
    if len(different) <= DISCRETE and len(different) < len(values_R):
        steps = np.diff(different)
        half = steps.min() / 2 if len(steps) else max(abs(different[0]), 1.0) / 2
        if len(steps) == 0 or steps.max() < 40 * steps.min():
            low, high = different[0] - half, different[-1] + half
            bins = round((high - low) / (2 * half))
            return np.linspace(low, high, bins + 1)
    low, high = np.quantile(values_R, [TAIL, 1 - TAIL])
    if not high > low:
        low, high = different[0], different[-1]
    if (different == np.round(different)).all():
        width = max(int(np.ceil((high - low + 1) / BINS)), 1)
        bins = int(np.ceil((high - low + 1) / width))
        whole: Floats = np.floor(low) - 0.5 + width * np.arange(bins + 1.0)
        return whole
    return np.linspace(low, high, BINS + 1)


def count(values: Values, edges: Floats) -> Counts:
    """The histogram of a variable between `edges`."""
    known_R = np.isfinite(values.values_R)
    total = float(values.weights_R[known_R].sum())
    inside_R = known_R & (values.values_R >= edges[0]) & (values.values_R <= edges[-1])
    bins = len(edges) - 1
    place_R = np.clip(np.searchsorted(edges, values.values_R[inside_R], side="right") - 1, 0, bins - 1)
    weights_R = values.weights_R[inside_R]
    sumw_B: Floats = np.asarray(np.bincount(place_R, weights_R, bins), np.float64)
    if values.jet_R is None:
        squares_B = np.bincount(place_R, weights_R**2, bins)
    else:
        jet_R = values.jet_R[inside_R]
        jets = int(jet_R.max()) + 1 if len(jet_R) else 1
        cells_JB = np.bincount(jet_R * bins + place_R, weights_R, jets * bins).reshape(jets, bins)
        squares_B = (cells_JB**2).sum(0)
    return Counts(sumw_B, np.sqrt(squares_B), total)


def jet_values(kept: Kept, rows_J: NDArray[np.int64]) -> list[Values]:
    """The jet-level variables of some rows, without the means over particles."""
    return [
        Values(name, kept.values_JV[rows_J, column].astype(np.float64), kept.weights_J[rows_J], None)
        for column, name in enumerate(kept.names)
        if not name.startswith("mean ")
    ]


def particle_values(kept: Kept, rows_J: NDArray[np.int64]) -> list[Values]:
    """The particle-level variables of the rows whose particles were kept; these count for those that were not."""
    weights_J = kept.weights_J / kept.particle_share
    wanted_J = np.zeros(kept.jets, bool)
    wanted_J[rows_J] = True
    found = []
    for particles in kept.particles:
        rows_N = np.flatnonzero(wanted_J[particles.jet_N])
        jet_R = particles.jet_N[rows_N]
        for column, name in enumerate(particles.names):
            values_R = particles.values_NF[rows_N, column].astype(np.float64)
            found.append(Values(name, values_R, weights_J[jet_R], jet_R))
    return found


def joined(parts: Sequence[Sequence[Values]]) -> list[Values]:
    """The same variables of several samples as those of one."""
    found = []
    for same in zip(*parts, strict=True):
        jets, shift = [], 0
        for one in same:
            if one.jet_R is not None:
                jets.append(one.jet_R + shift)
                shift += int(one.jet_R.max()) + 1 if len(one.jet_R) else 0
        found.append(
            Values(
                same[0].name,
                np.concatenate([one.values_R for one in same]),
                np.concatenate([one.weights_R for one in same]),
                np.concatenate(jets) if jets else None,
            )
        )
    return found
