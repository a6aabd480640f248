"""Running statistics of variables: what is missing, what means 'not there', smallest, largest, mean, spread.

Shapes: R rows (jets or particles), V variables, S sentinels; J jets, N particles of all jets, F features.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SENTINELS = (
    *(-99.0, -999.0, -9999.0, -99999.0, -1000.0, -3000.0, 999.0, 9999.0, 99999.0),
    *(1e10, -1e10, 1e30, -1e30, 1e32, -1e32, 3.4028234663852886e38, -3.4028234663852886e38),
    *(-2147483648.0, 2147483647.0, 4294967295.0),
)
"""Numbers that ntuples write where there is no value."""
CHUNKS, PER_CHUNK = 50, 2000
"""Chunks, and values of each, that are kept to see a variable's shape."""
LARGE = 1e6
"""Values beyond this are suspicious in GeV, mm and rad."""


class Summary(NamedTuple):
    """A variable over all jets or particles that were read."""

    name: str
    values: int
    """How many there were."""
    nan: int
    infinite: int
    sentinels: dict[str, int]
    """Number -> how many values equal it, for those that occur."""
    minimum: float
    """Of the finite values, as are those below; NaN without any."""
    maximum: float
    mean: float
    std: float
    at_minimum: int
    """Values that equal the smallest."""
    at_maximum: int
    whole: bool
    """Whether it holds whole numbers by its type, as event numbers do."""
    large: int
    """Finite values beyond 10^6 that are no sentinels."""

    @property
    def constant(self) -> bool:
        """Whether every finite value is the same."""
        return self.values > self.nan + self.infinite and self.minimum == self.maximum


class Running:
    """Statistics of one variable, chunk by chunk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._values = self._nan = self._infinite = self._large = 0
        self._sentinels = np.zeros(len(SENTINELS), np.int64)
        self._low, self._high = np.inf, -np.inf
        self._whole = False
        self._at_low = self._at_high = 0
        self._finite, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, values_R: NDArray[Any]) -> None:
        """More values, of any type of number."""
        self._values += len(values_R)
        self._whole = values_R.dtype.kind in "iub"
        if values_R.dtype.kind == "f":
            finite_R = np.isfinite(values_R)
            if not finite_R.all():
                nan = int(np.isnan(values_R).sum())
                self._nan += nan
                self._infinite += len(values_R) - nan - int(finite_R.sum())
                values_R = values_R[finite_R]
        if not len(values_R):
            return
        self._extremes(values_R)
        self._moments(values_R)

    def _extremes(self, values_R: NDArray[Any]) -> None:
        low, high = float(values_R.min()), float(values_R.max())
        if low <= self._low:
            self._at_low = int((values_R == low).sum()) + (self._at_low if low == self._low else 0)
            self._low = low
        if high >= self._high:
            self._at_high = int((values_R == high).sum()) + (self._at_high if high == self._high else 0)
            self._high = high
        if low > -99 and high < 999:
            return
        floats_R = values_R.astype(np.float32, copy=False)
        found = 0
        for index, sentinel in enumerate(SENTINELS):
            if low <= sentinel <= high or np.float32(sentinel) in (np.float32(low), np.float32(high)):
                count = int((floats_R == np.float32(sentinel)).sum())
                self._sentinels[index] += count
                found += count if abs(sentinel) > LARGE else 0
        if max(-low, high) > LARGE:
            self._large += int((np.abs(values_R.astype(np.float64)) > LARGE).sum()) - found

    def _moments(self, values_R: NDArray[Any]) -> None:
        """Of two parts as of the whole (Chan et al., doi:10.1080/00031305.1983.10483115)."""
        count = len(values_R)
        floats_R = values_R.astype(np.float64)
        mean = float(floats_R.mean())
        squares = float(((floats_R - mean) ** 2).sum())
        total = self._finite + count
        gap = mean - self._mean
        self._squares += squares + gap**2 * self._finite * count / total
        self._mean += gap * count / total
        self._finite = total

    def summary(self) -> Summary:
        """What was found so far."""
        some = self._finite > 0
        return Summary(
            name=self.name,
            values=self._values,
            nan=self._nan,
            infinite=self._infinite,
            sentinels={
                f"{sentinel:g}": int(count)
                for sentinel, count in zip(SENTINELS, self._sentinels, strict=True)
                if count
            },
            minimum=self._low if some else np.nan,
            maximum=self._high if some else np.nan,
            mean=self._mean if some else np.nan,
            std=float(np.sqrt(self._squares / self._finite)) if some else np.nan,
            at_minimum=self._at_low,
            at_maximum=self._at_high,
            whole=self._whole,
            large=self._large,
        )


class Statistics:
    """Statistics of many variables by name, made when they are first met."""

    def __init__(self) -> None:
        self._running: dict[str, Running] = {}
        self._few: dict[str, list[NDArray[np.float64]]] = {}

    def add(self, name: str, values_R: NDArray[Any]) -> None:
        """More values of a variable."""
        self._running.setdefault(name, Running(name)).add(values_R)
        few = self._few.setdefault(name, [])
        if len(few) < CHUNKS and len(values_R):
            few.append(values_R[:: -(-len(values_R) // PER_CHUNK)].astype(np.float64))

    def few(self, name: str) -> NDArray[np.float64]:
        """Finite values of a variable from the first chunks, evenly taken: enough to see its shape."""
        values_R = np.concatenate(self._few.get(name) or [np.empty(0)])
        return values_R[np.isfinite(values_R)]

    def summaries(self) -> tuple[Summary, ...]:
        """All variables, in the order in which they were met."""
        return tuple(running.summary() for running in self._running.values())


def means(values_NF: NDArray[np.float32], lengths_J: NDArray[np.int32]) -> NDArray[np.float32]:
    """Mean of each feature over a jet's particles that have it; NaN where none has."""
    jet_N = np.repeat(np.arange(len(lengths_J)), lengths_J)
    means_JF = np.empty((len(lengths_J), values_NF.shape[1]), np.float32)
    for column in range(values_NF.shape[1]):
        values_N = values_NF[:, column]
        known_N = np.isfinite(values_N)
        counts_J = np.bincount(jet_N, known_N, len(lengths_J))
        sums_J = np.bincount(jet_N, np.where(known_N, values_N, 0), len(lengths_J))
        with np.errstate(invalid="ignore", divide="ignore"):
            means_JF[:, column] = sums_J / counts_J
    return means_JF
