"""Jets that look physical but are drawn, not simulated: what the makers of small files fill their schemas with.

Shapes: J jets, N particles of all jets, jet after jet; in each jet they descend in pT.
"""

from typing import NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CHARGED, NEUTRAL, PHOTON, ELECTRON, MUON = (211, 130, 22, 11, 13)


class Drawn(NamedTuple):
    """Jets with their particles. GeV, mm, rad."""

    counts_J: NDArray[np.int64]
    jet_N: NDArray[np.int64]
    """The jet that each particle belongs to."""
    jet_pt: Floats
    jet_eta: Floats
    jet_phi: Floats
    pt: Floats
    eta: Floats
    phi: Floats
    deta: Floats
    """Relative to the jet, without a sign convention."""
    dphi: Floats
    pid: NDArray[np.int64]
    """PDG code."""
    charge: NDArray[np.int64]
    d0: Floats
    d0_error: Floats
    dz: Floats
    dz_error: Floats

    def jagged(self, values_N: NDArray[np.generic]) -> ak.Array:
        """One list a jet."""
        return ak.unflatten(values_N, self.counts_J)

    def total(self, values_N: Floats) -> Floats:
        """Sum over each jet's particles."""
        return np.bincount(self.jet_N, values_N, minlength=len(self.counts_J))

    def slots(
        self, values_N: NDArray[np.generic], slots: int, dtype: type = np.float32
    ) -> NDArray[np.generic]:
        """The first `slots` particles of each jet, zero padded, (J, slots)."""
        first_J = np.cumsum(self.counts_J) - self.counts_J
        slot_N = np.arange(len(values_N)) - first_J[self.jet_N]
        kept = slot_N < slots
        padded = np.zeros((len(self.counts_J), slots), dtype)
        padded[self.jet_N[kept], slot_N[kept]] = values_N[kept]
        return padded


def drawn(
    jets: int,
    seed: int,
    *,
    prongs: int = 1,
    particles: float = 30.0,
    radius: float = 0.8,
    pt: tuple[float, float] = (500.0, 1000.0),
    displaced: float = 0.02,
) -> Drawn:
    """`jets` jets of some `prongs`; `displaced` is the width of their impact parameters in mm."""
    rng = np.random.default_rng(seed)
    counts_J = np.maximum(rng.poisson(particles, jets), 1)
    jet_N = np.repeat(np.arange(jets), counts_J)
    jet_pt, jet_eta, jet_phi = (
        rng.uniform(*pt, jets),
        rng.uniform(-2, 2, jets),
        rng.uniform(-np.pi, np.pi, jets),
    )
    fraction = rng.exponential(1.0, len(jet_N)) ** 2 + 1e-3
    momentum = jet_pt[jet_N] * fraction / np.bincount(jet_N, fraction)[jet_N]
    axes_JP2 = rng.uniform(-0.6, 0.6, (jets, prongs, 2)) * radius * (prongs > 1)
    prong_N = rng.integers(prongs, size=len(jet_N))
    offsets = axes_JP2[jet_N, prong_N] + rng.normal(0, 0.1 * radius, (len(jet_N), 2))
    kind = rng.choice(
        [CHARGED, PHOTON, NEUTRAL, ELECTRON, MUON], len(jet_N), p=[0.55, 0.27, 0.12, 0.03, 0.03]
    )
    sign = rng.choice([-1, 1], len(jet_N))
    charged = ~np.isin(kind, [PHOTON, NEUTRAL])
    # A negative charge is the antiparticle of a hadron, and the particle among leptons.
    pid = np.where(charged, kind * np.where(np.isin(kind, [ELECTRON, MUON]), -sign, sign), kind)
    order = np.lexsort((-momentum, jet_N))
    deta, dphi = offsets.T
    error = rng.uniform(0.01, 0.2, len(jet_N))
    drawn_N = {
        "pt": momentum,
        "eta": jet_eta[jet_N] + deta,
        "phi": (jet_phi[jet_N] + dphi + np.pi) % (2 * np.pi) - np.pi,
        "deta": deta,
        "dphi": dphi,
        "pid": pid,
        "charge": np.where(charged, sign, 0),
        "d0": np.where(charged, rng.normal(0, displaced + error), 0.0),
        "d0_error": np.where(charged, error, 0.0),
        "dz": np.where(charged, rng.normal(0, displaced + 2 * error), 0.0),
        "dz_error": np.where(charged, 2 * error, 0.0),
    }
    return Drawn(
        counts_J, jet_N, jet_pt, jet_eta, jet_phi, **{name: values[order] for name, values in drawn_N.items()}
    )
