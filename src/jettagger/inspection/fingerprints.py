"""A 64-bit number for each jet that depends on its inputs alone: equal jets have equal numbers.

Two different jets share one by chance about once in 2^64 / (number of pairs).

Shapes: J jets, N particles of all jets, F features.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jettagger import randomness
from jettagger.data.rows import RawInputs

Hashes = NDArray[np.uint64]


def fingerprints(raw: RawInputs, spectators: dict[str, NDArray[np.float64]], jets: int) -> Hashes:
    """The numbers of all jets; the order of a jet's particles matters."""
    total_J = np.zeros(jets, np.uint64)
    if raw.jet_JF is not None:
        total_J += _columns(raw.jet_JF, "jet")
    for name, values_J in spectators.items():
        total_J += _columns(values_J.astype(np.float32)[:, None], f"spectator {name}")
    for name, collection in raw.collections.items():
        lengths_J = collection.lengths_J.astype(np.int64)
        ends_J = np.cumsum(lengths_J)
        place_N = np.arange(len(collection.values_NF)) - np.repeat(ends_J - lengths_J, lengths_J)
        each_N = _mixed(_columns(collection.values_NF, name) + place_N.astype(np.uint64))
        # Sums of unsigned numbers are taken modulo 2^64, so the difference of running sums is exact.
        running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(each_N, dtype=np.uint64)])
        total_J += running[ends_J] - running[ends_J - lengths_J]
        total_J = _mixed(total_J + lengths_J.astype(np.uint64))
    return _mixed(total_J)


def with_event(hashes_J: Hashes, group_J: NDArray[np.int64]) -> Hashes:
    """The numbers of jets that are equal and of one event."""
    return _mixed(hashes_J ^ _mixed(group_J.view(np.uint64)))


def _columns(values_RF: NDArray[np.floating[Any]], name: str) -> Hashes:
    """A number for each row; NaNs are alike, and so are 0 and -0."""
    total_R = np.zeros(len(values_RF), np.uint64)
    for column in range(values_RF.shape[1]):
        plain = values_RF[:, column].astype(np.float32) + np.float32(0.0)
        bits = np.where(np.isnan(plain), np.float32(np.nan), plain).view(np.uint32).astype(np.uint64)
        total_R += _mixed(bits + np.uint64(randomness.key(0, "fingerprint", name, column)))
    return total_R


def _mixed(state: Hashes) -> Hashes:
    """SplitMix64's last steps (doi:10.1145/2660193.2660195)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
