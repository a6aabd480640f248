"""FastJet on blocks: anti-kT (arXiv:0802.1189), soft drop (1402.2657), N-subjettiness (1011.2268)."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jettagger.errors import JettaggerError
from jettagger.kinematics import delta_phi
from jettagger.simulation.banners import banners_to_stderr
from jettagger.simulation.generator import Floats, Integers

SOFT_DROP_CUT = 0.1
SOFT_DROP_BETA = 0.0
MAX_AXES = 4
_LARGE_RADIUS = 100.0  # so that exclusive clustering of one jet never stops at the beam


class FourVectors(Protocol):
    """Anything with arrays of four-momenta in GeV and an ascending event index."""

    @property
    def event(self) -> Integers: ...
    @property
    def px(self) -> Floats: ...
    @property
    def py(self) -> Floats: ...
    @property
    def pz(self) -> Floats: ...
    @property
    def energy(self) -> Floats: ...


@dataclass(frozen=True)
class Jets:
    """Jets of a block: ascending in event, within an event descending in pT; J jets."""

    event: Integers
    px: Floats
    py: Floats
    pz: Floats
    energy: Floats
    constituents: Any
    """Awkward array of J lists: indices of the clustered particles."""

    def select(self, keep: Any) -> "Jets":
        """The jets that a mask or an index array picks."""
        return Jets(**{name: values[keep] for name, values in vars(self).items()})

    @property
    def pt(self) -> Floats:
        """Transverse momentum in GeV."""
        return np.hypot(self.px, self.py)

    @property
    def eta(self) -> Floats:
        """Pseudorapidity."""
        return np.arcsinh(self.pz / self.pt)

    @property
    def phi(self) -> Floats:
        """Azimuth in rad."""
        return np.arctan2(self.py, self.px)

    def __len__(self) -> int:
        return len(self.event)


def anti_kt(particles: FourVectors, events: int, radius: float, minimum_pt: float) -> Jets:
    """Anti-kT jets above `minimum_pt` in GeV (E scheme) in each of `events` events."""
    import awkward as ak

    fastjet = require_fastjet()
    counts = np.bincount(particles.event, minlength=events)
    starts = np.cumsum(counts) - counts
    with _quiet(), banners_to_stderr():
        sequence = fastjet.ClusterSequence(
            _momenta(particles, counts), fastjet.JetDefinition(fastjet.antikt_algorithm, radius)
        )
        found, members = sequence.inclusive_jets(minimum_pt), sequence.constituent_index(minimum_pt)
    event = np.repeat(np.arange(events), ak.to_numpy(ak.num(found)))
    px, py, pz, energy = (ak.to_numpy(ak.flatten(found[name])) for name in ("px", "py", "pz", "E"))
    jets = Jets(event, px, py, pz, energy, ak.flatten(members) + starts[event])
    return jets.select(np.lexsort((-np.hypot(px, py), event)))


@dataclass(frozen=True)
class Substructure:
    """Substructure of J jets."""

    soft_drop_mass: Floats
    """Mass in GeV after soft drop, z_cut 0.1 and beta 0."""
    tau: Floats
    """tau_1 ... tau_4 as (J, 4), 0 where a jet has fewer constituents than axes."""


def substructure(particles: FourVectors, counts: Integers, radius: float) -> Substructure:
    """Soft-drop mass and N-subjettiness of jets of `counts` particles each, at least one."""
    if not len(counts):
        return Substructure(np.zeros(0), np.zeros((0, MAX_AXES)))
    constituents = _momenta(particles, counts)
    return Substructure(_soft_drop_mass(constituents, radius), _n_subjettiness(constituents, radius))


def _soft_drop_mass(constituents: Any, radius: float) -> Floats:
    import awkward as ak

    fastjet = require_fastjet()
    with _quiet():
        tree = fastjet.ClusterSequence(
            constituents, fastjet.JetDefinition(fastjet.cambridge_algorithm, _LARGE_RADIUS)
        )
        groomed = tree.exclusive_jets_softdrop_grooming(
            1, beta=SOFT_DROP_BETA, symmetry_cut=SOFT_DROP_CUT, R0=radius
        )
    # Rounding makes a single massless constituent's mass slightly imaginary.
    return np.asarray(np.maximum(np.nan_to_num(ak.to_numpy(groomed.msoftdrop)), 0.0))


def _n_subjettiness(constituents: Any, radius: float) -> Floats:
    """tau_N = sum pT min(Delta R to N axes) / (sum pT R), axes: exclusive kT, winner takes all, beta 1."""
    import awkward as ak

    fastjet = require_fastjet()
    definition = fastjet.JetDefinition(fastjet.kt_algorithm, _LARGE_RADIUS, fastjet.WTA_pt_scheme)
    counts = ak.to_numpy(ak.num(constituents.px))
    tau = np.zeros((len(counts), MAX_AXES))
    flat = ak.flatten(constituents)
    pt, rapidity, phi = _cylindrical(flat)
    jet = np.repeat(np.arange(len(counts)), counts)
    with _quiet():
        for axes in range(1, MAX_AXES + 1):
            enough = counts >= axes
            if not enough.any():
                continue
            tree = fastjet.ClusterSequence(constituents[enough], definition)
            _, axis_y, axis_phi = _cylindrical(ak.flatten(tree.exclusive_jets(axes)))
            row = np.cumsum(enough) - 1
            rows = row[jet][enough[jet]]
            mine = enough[jet]
            distance = np.full(mine.sum(), np.inf)
            for axis in range(axes):
                d_y = rapidity[mine] - axis_y.reshape(-1, axes)[rows, axis]
                d_phi = delta_phi(phi[mine], axis_phi.reshape(-1, axes)[rows, axis])
                distance = np.minimum(distance, np.hypot(d_y, d_phi))
            tau[:, axes - 1] = np.bincount(jet[mine], pt[mine] * distance, len(counts))
    return tau / (np.maximum(np.bincount(jet, pt, len(counts)), 1e-300) * radius)[:, None]


def _cylindrical(vectors: Any) -> tuple[Floats, Floats, Floats]:
    """pT, rapidity and phi of a flat record array."""
    import awkward as ak

    px, py, pz, energy = (ak.to_numpy(vectors[name]) for name in ("px", "py", "pz", "E"))
    # y = log((E + |pz|) / mT): no difference of large numbers, and slightly space-like vectors survive
    transverse = np.sqrt(np.maximum((energy - np.abs(pz)) * (energy + np.abs(pz)), px**2 + py**2))
    rapidity = np.copysign(np.log((energy + np.abs(pz)) / transverse), pz)
    return np.hypot(px, py), rapidity, np.arctan2(py, px)


def _momenta(particles: FourVectors, counts: Integers) -> Any:
    import awkward as ak

    flat = {"px": particles.px, "py": particles.py, "pz": particles.pz, "E": particles.energy}
    return ak.unflatten(ak.zip(flat, with_name="Momentum4D"), counts)


@contextmanager
def _quiet() -> Iterator[None]:
    """FastJet's Python wrapper warns of exclusive jets of any algorithm, kT and C/A too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="dcut and exclusive jets", category=UserWarning)
        yield


def require_fastjet() -> Any:
    """The module `fastjet`; JettaggerError where it is not installed."""
    try:
        import fastjet
    except ImportError as error:
        raise JettaggerError(f'FastJet is not installed: pip install "jettagger[sim]" ({error})') from error
    return fastjet
