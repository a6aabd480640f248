"""What several networks, or dropout passes, say together of a regression target.

Shapes: N jets, Q quantiles.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.outputs.description import Estimate, TargetOutput
from jettagger.uncertainty.decomposition import Floats


class TargetPrediction(NamedTuple):
    """A target of N jets, in the user's units."""

    value_N: Floats
    """Mean over networks of their means (quantile: of their medians)."""
    std_N: Floats
    """Between networks, ddof = 1 (epistemic in ML terms); 0 for a single one."""
    error_N: Floats | None
    """gaussian_nll: standard deviation of the mixture of the networks' Gaussians, √(mean σ² + mean μ² - (mean μ)²),
    noise and spread together (arXiv:1612.01474). None for losses that teach no noise."""
    noise_N: Floats | None
    """gaussian_nll: √(mean σ²) (aleatoric)."""
    quantiles_NQ: Floats | None
    """quantile: mean over networks, ascending."""
    levels: tuple[float, ...]
    """quantile: the Q levels; empty for other losses."""
    samples: int
    """Networks or passes; the fewest, where not all jets have equally many."""

    def at(self, rows_J: NDArray[np.integer]) -> "TargetPrediction":
        """The same of some of the jets, in that order."""
        arrays = {
            name: values[rows_J] for name, values in self._asdict().items() if isinstance(values, np.ndarray)
        }
        return self._replace(**arrays)


class TargetAccumulator:
    """Takes networks one after another and keeps sums only, so that memory does not grow with their number."""

    def __init__(self, target: TargetOutput) -> None:
        self.target = target
        self.samples = 0
        self._mean: Floats = np.zeros(0)
        self._squares: Floats = np.zeros(0)
        self._variance: Floats | None = None
        self._quantiles: Floats | None = None

    def add(self, estimate: Estimate) -> None:
        """What one network says."""
        value_N, variance_N, quantiles_NQ = (
            None if x is None else np.asarray(x.cpu().numpy(), np.float64) for x in estimate
        )
        assert value_N is not None
        self.samples += 1
        if self.samples == 1:
            self._mean, self._squares = value_N.copy(), np.zeros_like(value_N)
            self._variance, self._quantiles = variance_N, quantiles_NQ
            return
        delta_N = value_N - self._mean
        self._mean += delta_N / self.samples
        self._squares += delta_N * (value_N - self._mean)
        self._variance = _moved(self._variance, variance_N, self.samples)
        self._quantiles = _moved(self._quantiles, quantiles_NQ, self.samples)

    def result(self) -> TargetPrediction:
        """The figures of all networks added so far."""
        if not self.samples:
            raise ValueError("no network was added")
        noise_N, error_N = self._variance, None
        if noise_N is not None:
            error_N, noise_N = np.sqrt(noise_N + self._squares / self.samples), np.sqrt(noise_N)
        return TargetPrediction(
            value_N=self._mean,
            std_N=np.sqrt(self._squares / max(self.samples - 1, 1)),
            error_N=error_N,
            noise_N=noise_N,
            quantiles_NQ=self._quantiles,
            levels=self.target.quantiles,
            samples=self.samples,
        )


def joined(parts: Sequence[TargetPrediction]) -> TargetPrediction:
    """The predictions of batches, one after the other."""

    def of(arrays: Sequence[NDArray[np.float64] | None]) -> Floats | None:
        known = [x for x in arrays if x is not None]
        return np.concatenate(known) if len(known) == len(arrays) else None

    first = parts[0]
    return TargetPrediction(
        np.concatenate([part.value_N for part in parts]),
        np.concatenate([part.std_N for part in parts]),
        of([part.error_N for part in parts]),
        of([part.noise_N for part in parts]),
        of([part.quantiles_NQ for part in parts]),
        first.levels,
        min(part.samples for part in parts),
    )


def nothing(target: TargetOutput, samples: int) -> TargetPrediction:
    """The prediction of no jets."""
    empty_N = np.empty(0)
    noisy = target.loss == "gaussian_nll"
    return TargetPrediction(
        empty_N,
        empty_N,
        empty_N if noisy else None,
        empty_N if noisy else None,
        np.empty((0, len(target.quantiles))) if target.quantiles else None,
        target.quantiles,
        samples,
    )


def _moved(mean: Floats | None, value: Floats | None, samples: int) -> Floats | None:
    return None if mean is None or value is None else mean + (value - mean) / samples
