"""What the spread between networks says of a prediction.

Shapes: M members (or MC-dropout passes), N jets, C classes. Entropies in nats.

The spread between trainings is called epistemic in machine learning (a lecture on HEP would count it as the
statistical part of a training's uncertainty); label noise is called aleatoric.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Decomposition(NamedTuple):
    """Mean prediction and its uncertainties; each array has one entry a jet."""

    probabilities_NC: Floats
    """Mean over members."""
    std_NC: Floats
    """Standard deviation over members, ddof = 1; 0 for a single member."""
    total_entropy_N: Floats
    """H(mean p), nats."""
    expected_entropy_N: Floats
    """Mean H(p): label noise (aleatoric)."""
    mutual_information_N: Floats
    """(total - expected) M/(M-1): between trainings (epistemic); comparable for any M. 0 for M = 1."""
    samples: int
    """M."""


class Accumulator:
    """Takes members one after another and keeps sums only, so that memory does not grow with M."""

    def __init__(self) -> None:
        self.samples = 0
        self._mean: Floats | None = None
        self._squares: Floats | None = None
        self._entropy: Floats | None = None

    def add(self, probabilities_NC: NDArray[np.floating]) -> None:
        """Adds one member's probabilities, (N, C)."""
        self.add_many(np.asarray(probabilities_NC)[None])

    def add_many(self, probabilities_MNC: NDArray[np.floating]) -> None:
        """Adds the probabilities of several members, (M, N, C)."""
        p_MNC = np.asarray(probabilities_MNC, np.float64)
        added = len(p_MNC)
        mean_NC, entropy_N = p_MNC.mean(0), entropy(p_MNC).mean(0)
        squares_NC = np.square(p_MNC - mean_NC).sum(0)
        self.samples += added
        if self._mean is None or self._squares is None or self._entropy is None:
            self._mean, self._squares, self._entropy = mean_NC, squares_NC, entropy_N
            return
        # Chan's update: the naive sum of squares loses the spread to rounding when members agree.
        fraction, delta_NC = added / self.samples, mean_NC - self._mean
        self._mean += delta_NC * fraction
        self._squares += squares_NC + np.square(delta_NC) * (added * (1 - fraction))
        self._entropy += (entropy_N - self._entropy) * fraction

    def result(self) -> Decomposition:
        """The figures of all members added so far."""
        if self._mean is None or self._squares is None or self._entropy is None:
            raise ValueError("no member was added")
        many = self.samples > 1
        total_N = entropy(self._mean)
        gap_N = np.maximum(total_N - self._entropy, 0.0)
        return Decomposition(
            probabilities_NC=self._mean,
            std_NC=np.sqrt(self._squares / (self.samples - 1)) if many else np.zeros_like(self._mean),
            total_entropy_N=total_N,
            expected_entropy_N=self._entropy,
            mutual_information_N=gap_N * self.samples / (self.samples - 1) if many else np.zeros_like(gap_N),
            samples=self.samples,
        )


def decompose(probabilities_MNC: NDArray[np.floating]) -> Decomposition:
    """The figures of M members' probabilities, (M, N, C)."""
    accumulator = Accumulator()
    for probabilities_NC in probabilities_MNC:
        accumulator.add(probabilities_NC)
    return accumulator.result()


def entropy(probabilities_NC: Floats) -> Floats:
    """H(p) = -sum_k p_k ln p_k in nats, (..., C) -> (...); 0 ln 0 = 0."""
    logarithm = np.log(np.where(probabilities_NC > 0, probabilities_NC, 1.0))
    entropies: Floats = -(probabilities_NC * logarithm).sum(-1)
    return entropies
