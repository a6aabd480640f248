"""Poisson bootstrap, paired: runs on the same jets share their replicas, so differences have small errors.

Shapes: N jets, R replicas, S signal jets, B background jets, E signal efficiencies.

In a replica each jet counts k ~ Poisson(1) times, where k is a function of (seed, replica, the jet's index)
alone. Scores are sorted once, and a replica costs two cumulative sums.
"""

from collections.abc import Callable, Iterator, Sequence
from math import exp, factorial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jettagger.metrics.calibration import BINS, equal_width, top_label
from jettagger.metrics.counting import Floats, Integers, Measurement
from jettagger.metrics.ranking import Ranking, auc, cumulative, first_reaching, rejection
from jettagger.randomness import uniform_of

Statistic = Callable[[Floats], Floats]
"""From weights (R, N) to values (R, columns)."""

_AT_ONCE = 1 << 20
_CDF = np.cumsum([exp(-1) / factorial(k) for k in range(12)])
_TOO_MANY_UNDEFINED = 0.05


class Paired(NamedTuple):
    """Two runs on the same jets: first minus second."""

    auc_difference: Measurement
    """AUC of the first minus AUC of the second."""
    log_rejection_ratio: tuple[Measurement, ...]
    """ln(R_first / R_second) at each signal efficiency; NaN where a rejection is only a limit."""
    first_error: Floats
    """Bootstrap errors of the first alone: AUC, then ln R at each signal efficiency."""
    second_error: Floats
    """The same of the second."""


def replica_counts(
    identity_N: Integers, replicas: int, seed: int = 0
) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Blocks of replicas: their place among the R, and how often each jet counts, (rows, N)."""
    rows = max(1, _AT_ONCE // max(len(identity_N), 1))
    for start in range(0, replicas, rows):
        stop = min(start + rows, replicas)
        counts = [
            np.searchsorted(_CDF, uniform_of(identity_N, seed, "bootstrap", r), side="right").astype(np.uint8)
            for r in range(start, stop)
        ]
        yield slice(start, stop), np.stack(counts)


def bootstrap(
    statistics: Sequence[Statistic],
    weights_N: ArrayLike,
    *,
    replicas: int = 300,
    seed: int = 0,
    identity_N: Integers | None = None,
) -> list[Floats]:
    """Values of each statistic in each replica, (R, columns); all statistics see the same replicas.

    `identity_N` are the jets' indices in the test sample; default 0…N-1.
    """
    weights_N = np.asarray(weights_N, np.float64)
    identity_N = np.arange(len(weights_N)) if identity_N is None else identity_N
    blocks: list[list[Floats]] = [[] for _ in statistics]
    for _, counts in replica_counts(identity_N, replicas, seed):
        weights_RN = counts * weights_N
        for block, statistic in zip(blocks, statistics, strict=True):
            block.append(statistic(weights_RN))
    return [np.concatenate(block) for block in blocks]


def spread(values_R: Floats) -> Floats:
    """Standard deviation over replicas (first axis); NaN if more than 5 % of them are undefined."""
    known = np.isfinite(values_R)
    count = known.sum(0)
    mean = np.divide(np.where(known, values_R, 0.0).sum(0), count, where=count > 0, out=np.zeros(count.shape))
    squares = (np.where(known, values_R - mean, 0.0) ** 2).sum(0)
    enough = (count >= 2) & (count >= (1 - _TOO_MANY_UNDEFINED) * len(values_R))
    error: Floats = np.sqrt(np.divide(squares, count - 1, where=enough, out=np.full(count.shape, np.nan)))
    return error


def ranking_statistic(ranking: Ranking, signal_efficiencies: Sequence[float] = ()) -> Statistic:
    """AUC, then ln R at each signal efficiency, (R, 1 + E); ln R is NaN where no background is left."""
    wanted_E = np.asarray(signal_efficiencies, np.float64)

    def statistic(weights_RN: Floats) -> Floats:
        signal = cumulative(weights_RN[:, ranking.signal_S])
        background_RB = weights_RN[:, ranking.background_B]
        total_s, total_b = signal[:, -1], background_RB.sum(1)
        places_RB = signal[:, ranking.signal_above_B] + signal[:, ranking.signal_from_B]
        with np.errstate(divide="ignore", invalid="ignore"):
            area_R = np.einsum("rb,rb->r", background_RB, places_RB) / (2 * total_s * total_b)
            if len(wanted_E) == 0:
                return np.reshape(area_R, (-1, 1))
            at_RE = np.stack([first_reaching(row[1:], wanted_E) for row in signal])
            # The highest index reached bounds what has to be summed of the background.
            survivors_RE = ranking.background_from_S[at_RE]
            passing = cumulative(background_RB[:, : survivors_RE.max()])
            e_b = np.take_along_axis(passing, survivors_RE, 1) / total_b[:, None]
            log_r = -np.log(np.where(e_b > 0, e_b, np.nan))
        return np.column_stack([area_R, log_r])

    return statistic


def macro_statistic(rankings: Sequence[Ranking]) -> Statistic:
    """Mean AUC of several rankings of the same jets, (R, 1)."""
    each = [ranking_statistic(ranking) for ranking in rankings]
    return lambda weights_RN: np.mean(np.stack([one(weights_RN) for one in each]), axis=0)


def mean_statistic(values_N: ArrayLike) -> Statistic:
    """Weighted mean of a figure that each jet has (right or wrong, -ln p, Brier), (R, 1)."""
    values_N = np.asarray(values_N, np.float64)

    def statistic(weights_RN: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.reshape(weights_RN @ values_N / weights_RN.sum(1), (-1, 1))

    return statistic


def ece_statistic(probabilities_NC: ArrayLike, labels_N: ArrayLike, bins: int = BINS) -> Statistic:
    """Top-label calibration error, (R, 1)."""
    confidence_N, right_N = top_label(probabilities_NC, labels_N)
    bin_N = equal_width(confidence_N, bins)
    order_N = np.argsort(bin_N, kind="stable")
    start_K = np.flatnonzero(np.diff(bin_N[order_N], prepend=-1))
    gap_N = (right_N - confidence_N)[order_N]

    def statistic(weights_RN: Floats) -> Floats:
        gaps_RK = np.add.reduceat(weights_RN[:, order_N] * gap_N, start_K, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.reshape(np.abs(gaps_RK).sum(1) / np.abs(weights_RN.sum(1)), (-1, 1))

    return statistic


def paired_bootstrap(
    first: Ranking,
    second: Ranking,
    weights_N: ArrayLike,
    *,
    signal_efficiencies: Sequence[float] = (0.3, 0.5, 0.8),
    replicas: int = 300,
    seed: int = 0,
    identity_N: Integers | None = None,
) -> Paired:
    """Differences of two runs on the same jets, with errors from shared replicas."""
    a_R, b_R = bootstrap(
        [ranking_statistic(one, signal_efficiencies) for one in (first, second)],
        weights_N,
        replicas=replicas,
        seed=seed,
        identity_N=identity_N,
    )
    error = spread(a_R - b_R)
    ratios = []
    for column, wanted in enumerate(signal_efficiencies, start=1):
        r_a, r_b = rejection(first, wanted).value, rejection(second, wanted).value
        central = np.log(r_a / r_b) if r_a is not None and r_b is not None else np.nan
        ratios.append(Measurement(float(central), float(error[column])))
    difference = Measurement(auc(first).value - auc(second).value, float(error[0]))
    return Paired(difference, tuple(ratios), spread(a_R), spread(b_R))
