"""Reductions: one value a jet from the values of its particles, also where a jet has none.

N jets; P particles of all jets; M jets that have particles.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.expressions.functions import ArgumentFault, kind_of, widened
from jettagger.expressions.jagged import Jagged, spread

Number = bool | int | float


class Reduction(NamedTuple):
    """`compute(particles)`, with `n` where it is indexed and `missing` where an empty jet has no value."""

    compute: Callable[..., NDArray[Any]]
    signature: str
    may_miss: bool = False
    indexed: bool = False


def _reduced(function: np.ufunc, particles: Jagged, empty: Number) -> NDArray[Any]:
    """`function` over each jet's particles. reduceat alone gives an empty jet its neighbour's value."""
    values_P, offsets = particles
    filled_N = offsets[1:] > offsets[:-1]
    if filled_N.all() and len(filled_N):
        return np.asarray(function.reduceat(values_P, offsets[:-1]))
    result_N = np.full(len(filled_N), empty, dtype=values_P.dtype)
    if len(values_P):
        result_N[filled_N] = function.reduceat(values_P, offsets[:-1][filled_N])
    return result_N


def able_to_miss(values: NDArray[Any], missing: Number) -> NDArray[Any]:
    """`values` in a type that holds `missing`: integers stay integers only where it is one."""
    kinds = kind_of(values) + kind_of(missing)
    if kinds[0] == "f" or kinds == "bb":
        return values
    return np.asarray(widened(values)) if kinds[1] != "f" else values.astype(np.float64)


def _sum(particles: Jagged) -> NDArray[Any]:
    return _reduced(np.add, particles._replace(values=widened(particles.values)), 0)


def _count(particles: Jagged) -> NDArray[Any]:
    if kind_of(particles.values) == "b":
        raise ArgumentFault(
            0,
            "'count' counts all particles of a jet, and this is a condition: write sum(condition) for those "
            "that fulfil it",
        )
    return particles.counts


def _conditional(name: str, function: np.ufunc, empty: bool) -> Callable[..., NDArray[Any]]:
    def compute(particles: Jagged) -> NDArray[Any]:
        if kind_of(particles.values) != "b":
            raise ArgumentFault(0, f"'{name}' takes a condition, and this is a number: write '… != 0'")
        return _reduced(function, particles, empty)

    return compute


def _extreme(function: np.ufunc) -> Callable[..., NDArray[Any]]:
    def compute(particles: Jagged, missing: Number) -> NDArray[Any]:
        return _reduced(function, particles._replace(values=able_to_miss(particles.values, missing)), missing)

    return compute


def _real(particles: Jagged) -> Jagged:
    values = particles.values
    return particles if values.dtype.kind == "f" else particles._replace(values=values.astype(np.float64))


def _mean(particles: Jagged, missing: Number) -> NDArray[Any]:
    particles = _real(particles)
    counts_N = particles.counts
    mean_N = _sum(particles) / counts_N.astype(particles.values.dtype)
    mean_N[counts_N == 0] = missing
    return np.asarray(mean_N)


def _std(particles: Jagged, missing: Number) -> NDArray[Any]:
    particles = _real(particles)
    deviation_P = particles.values - spread(_mean(particles, 0), particles.offsets)
    std_N = np.sqrt(_mean(particles._replace(values=deviation_P**2), 0))
    std_N[particles.counts == 0] = missing
    return np.asarray(std_N)


def _leading(particles: Jagged, n: int, missing: Number) -> NDArray[Any]:
    values_P, offsets = able_to_miss(particles.values, missing), particles.offsets
    present_N = particles.counts > n
    result_N = np.full(len(present_N), missing, dtype=values_P.dtype)
    result_N[present_N] = values_P[offsets[:-1][present_N] + n]
    return result_N


_BLOCK = 4096  # jets that are sorted at a time, bounding the memory of their padded form


def _nth_largest(particles: Jagged, n: int, missing: Number) -> NDArray[Any]:
    """NaN counts as the smallest value, as padding does."""
    values_P, offsets = _real(particles).values, particles.offsets
    counts_N = particles.counts
    result_N = np.full(len(counts_N), missing, dtype=values_P.dtype)
    for start in range(0, len(counts_N), _BLOCK):
        block = np.flatnonzero(counts_N[start : start + _BLOCK] > n) + start
        if len(block) == 0:
            continue
        column_K = np.arange(counts_N[block].max())
        rows_BK = column_K < counts_N[block, None]
        negative_BK = np.full(rows_BK.shape, np.nan, dtype=values_P.dtype)
        negative_BK[rows_BK] = -values_P[(offsets[block, None] + column_K)[rows_BK]]
        result_N[block] = -np.partition(negative_BK, n, axis=1)[:, n]
    return _as_given(result_N, particles.values, missing)


def _as_given(result_N: NDArray[Any], values: NDArray[Any], missing: Number) -> NDArray[Any]:
    return result_N.astype(able_to_miss(values[:0], missing).dtype, copy=False)


REDUCTIONS: dict[str, Reduction] = {
    "sum": Reduction(_sum, "sum(x)"),
    "count": Reduction(_count, "count(x)"),
    "any": Reduction(_conditional("any", np.logical_or, False), "any(condition)"),
    "all": Reduction(_conditional("all", np.logical_and, True), "all(condition)"),
    "mean": Reduction(_mean, "mean(x, missing=nan)", may_miss=True),
    "std": Reduction(_std, "std(x, missing=nan)", may_miss=True),
    "max": Reduction(_extreme(np.maximum), "max(x, missing=nan)", may_miss=True),
    "min": Reduction(_extreme(np.minimum), "min(x, missing=nan)", may_miss=True),
    "leading": Reduction(_leading, "leading(x, n, missing=nan)", may_miss=True, indexed=True),
    "nth_largest": Reduction(_nth_largest, "nth_largest(x, n, missing=nan)", may_miss=True, indexed=True),
}
