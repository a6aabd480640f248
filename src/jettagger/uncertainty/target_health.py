"""Whether the members of an ensemble have learned their regression targets.

Shapes: M members, N jets.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger import metrics
from jettagger.uncertainty.decomposition import Floats
from jettagger.uncertainty.ensemble import CONSTANT

FAR, SPREADS, FEWEST = 0.1, 5.0, 3
"""A member is far off where its deviation exceeds the members' median by a tenth and five of their robust spreads; of
fewer than three nobody can say which is."""


class TargetHealth(NamedTuple):
    """What one member says of one target of a validation sample."""

    deviation: float
    """Mean of |prediction - truth|, weighted by |w|, in the target's units: never negative, and zero for a perfect
    prediction alone, whatever the weights' signs. NaN where it is not defined."""
    problem: str | None
    """None, `not finite`, `constant` or `no better than a constant`."""


def target_health(
    value_N: Floats, truth_N: NDArray[np.floating], weights_N: NDArray[np.floating]
) -> TargetHealth:
    """Jets whose truth is not finite say nothing, but that a prediction must be finite for them as well.

    A prediction is no better than a constant where neither its squares nor its absolute deviations are: those of the
    truth from its mean and from its median. A mean and a median need not be good at both.
    """
    if not np.isfinite(value_N).all():
        return TargetHealth(np.nan, "not finite")
    known_N = np.isfinite(truth_N)
    truth_N, w_N = np.asarray(truth_N, np.float64)[known_N], np.asarray(weights_N, np.float64)[known_N]
    scale = truth_N.std() if len(truth_N) > 1 and truth_N.std() > 0 else 1.0
    # The units of a prediction are float32's.
    rounding = float(np.finfo(np.float32).eps) * float(np.abs(value_N).max(initial=0.0))
    constant = len(value_N) > 1 and np.ptp(value_N) <= max(CONSTANT * scale, rounding)
    size_N, off_N = np.abs(w_N), np.abs(value_N[known_N] - truth_N)
    deviation = float(off_N @ size_N / size_N.sum()) if size_N.sum() > 0 else np.nan
    if constant or not w_N.sum() > 0:
        return TargetHealth(deviation, "constant" if constant else None)
    mean, median = float(truth_N @ w_N / w_N.sum()), float(metrics.quantile(truth_N, 0.5, w_N))
    worse = off_N**2 @ w_N >= (truth_N - mean) ** 2 @ w_N and off_N @ w_N >= np.abs(truth_N - median) @ w_N
    return TargetHealth(deviation, "no better than a constant" if worse else None)


def far_off(deviations_M: Floats) -> NDArray[np.bool_]:
    """Which members' deviations, none of them negative, are far above those of the others; NaN is none."""
    known_M = np.isfinite(deviations_M)
    if known_M.sum() < FEWEST:
        return np.zeros(len(deviations_M), bool)
    median = float(np.median(deviations_M[known_M]))
    spread = 1.4826 * float(np.median(np.abs(deviations_M[known_M] - median)))
    found_M: NDArray[np.bool_] = known_M & (deviations_M > median + max(FAR * median, SPREADS * spread))
    return found_M
