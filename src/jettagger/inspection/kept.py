"""A bounded random sample of the jets that were read, for whatever cannot be computed on the way.

Shapes: J jets, N particles of all jets, V jet-level variables, F features of a collection.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger import randomness
from jettagger.data.rows import RawInputs, copied, offsets_of

Floats = NDArray[np.float32]
PARTICLE_JETS = 5000
"""Jets of a sample whose particles are kept, at most."""


class ParticleRows(NamedTuple):
    """Particles of the first jets of a sample."""

    names: tuple[str, ...]
    """<collection>.<feature>."""
    values_NF: Floats
    jet_N: NDArray[np.int64]
    """Row of the particle's jet."""


class Kept(NamedTuple):
    """Jets that were drawn at random."""

    role: str
    sample: str
    read: int
    """Selected jets that they were drawn from."""
    names: tuple[str, ...]
    values_JV: Floats
    labels_J: NDArray[np.int64]
    """-1 where there are no labels."""
    weights_J: NDArray[np.float64]
    group_J: NDArray[np.int64]
    side_J: NDArray[np.int8]
    """Index in `sides.SIDES`; -1 for what is on none."""
    extras: dict[str, NDArray[np.float64]]
    """What splits and training weights look at."""
    targets: dict[str, Floats]
    """Regression targets, (J,) each; none where there are no labels."""
    particles: tuple[ParticleRows, ...]
    """Of the first `particle_jets` rows."""
    particle_jets: int
    particle_share: float
    """Fraction of the jets that were drawn whose particles were kept."""

    @property
    def jets(self) -> int:
        """How many were kept."""
        return len(self.labels_J)


class Part(NamedTuple):
    """Jets of a chunk, and the numbers that they are drawn by."""

    keys_J: NDArray[np.float64]
    values_JV: Floats
    labels_J: NDArray[np.int64]
    weights_J: NDArray[np.float64]
    group_J: NDArray[np.int64]
    side_J: NDArray[np.int8]
    extras_JX: NDArray[np.float64]
    targets_JT: Floats

    def taken(self, rows: NDArray[np.int64]) -> "Part":
        return Part._make([array[rows] for array in self])


class Reservoir:
    """Keeps the jets with the smallest of random numbers that depend on the jet's place alone."""

    def __init__(self, role: str, sample: str, limit: int) -> None:
        self._role, self._sample, self._limit = role, sample, limit
        self._particle_limit = min(limit, PARTICLE_JETS)
        self._read = 0
        self._parts: list[Part] = []
        self._raw: list[tuple[NDArray[np.float64], RawInputs]] = []
        self.below = self._below_particles = 1.0
        """Jets with a larger number are not kept."""

    def wanted(self, jets: int) -> NDArray[np.float64]:
        """The random numbers of the next `jets` jets; the smallest are kept."""
        numbers = np.arange(self._read, self._read + jets, dtype=np.int64)
        self._read += jets
        return randomness.uniform_of(numbers, 0, "inspection", self._role, self._sample)

    def add(self, part: Part, raw: RawInputs) -> None:
        """Jets with the numbers that `wanted` gave them."""
        keys_J = part.keys_J
        self._parts.append(part.taken(np.flatnonzero(keys_J < self.below)))
        if sum(len(one.keys_J) for one in self._parts) > 2 * self._limit:
            self._compact()
        rows = np.flatnonzero(keys_J < self._below_particles)
        self._raw.append((keys_J[rows], rows_of(raw, rows)))
        if sum(len(keys) for keys, _ in self._raw) > 2 * self._particle_limit:
            self._compact_particles()

    def _compact(self) -> None:
        whole = Part._make(np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
        order = np.argsort(whole.keys_J, kind="stable")[: self._limit]
        self._parts = [whole.taken(order)]
        if len(order) == self._limit:
            self.below = float(whole.keys_J[order[-1]])

    def _compact_particles(self) -> None:
        keys = np.concatenate([keys for keys, _ in self._raw])
        raw = _joined([raw for _, raw in self._raw])
        order = np.argsort(keys, kind="stable")[: self._particle_limit]
        self._raw = [(keys[order], rows_of(raw, order))]
        if len(order) == self._particle_limit:
            self._below_particles = float(keys[order[-1]])

    def kept(
        self,
        names: tuple[str, ...],
        features: dict[str, tuple[str, ...]],
        extras: tuple[str, ...],
        targets: tuple[str, ...] = (),
    ) -> Kept | None:
        """The jets, by their random numbers; None where there are none."""
        if not self._parts or not any(len(part.keys_J) for part in self._parts):
            return None
        self._compact()
        self._compact_particles()
        [part], [(_, raw)] = self._parts, self._raw
        particles = tuple(
            ParticleRows(
                tuple(f"{name}.{feature}" for feature in features[name]),
                collection.values_NF,
                np.repeat(np.arange(len(collection.lengths_J)), collection.lengths_J),
            )
            for name, collection in raw.collections.items()
        )
        return Kept(
            role=self._role,
            sample=self._sample,
            read=self._read,
            names=names,
            values_JV=part.values_JV,
            labels_J=part.labels_J,
            weights_J=part.weights_J,
            group_J=part.group_J,
            side_J=part.side_J,
            extras=dict(zip(extras, part.extras_JX.T, strict=True)),
            targets=dict(zip(targets, part.targets_JT.T, strict=True)),
            particles=particles,
            particle_jets=len(self._raw[0][0]),
            particle_share=len(self._raw[0][0]) / len(part.labels_J),
        )


def rows_of(raw: RawInputs, rows: NDArray[np.int64]) -> RawInputs:
    """The inputs of some jets."""
    particles = {name: int(x.lengths_J[rows].sum()) for name, x in raw.collections.items()}
    return copied([(raw, offsets_of(raw), rows)], raw, len(rows), particles)


def _joined(parts: list[RawInputs]) -> RawInputs:
    lengths = [_length(raw) for raw in parts]
    pieces = [(raw, offsets_of(raw), np.arange(jets)) for raw, jets in zip(parts, lengths, strict=True)]
    particles = {
        name: sum(len(raw.collections[name].values_NF) for raw in parts) for name in parts[0].collections
    }
    return copied(pieces, parts[0], sum(lengths), particles)


def _length(raw: RawInputs) -> int:
    if raw.jet_JF is not None:
        return len(raw.jet_JF)
    return len(next(iter(raw.collections.values())).lengths_J)
