"""From a generated block to the jets that are written: detector, clustering, cuts, matching, branches."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jettagger import randomness
from jettagger.kinematics import delta_phi, delta_r, invariant_mass
from jettagger.simulation import jets as clustering
from jettagger.simulation.detector import NEUTRAL_HADRON, Candidates, detect
from jettagger.simulation.generator import BLOCK_EVENTS, Block, Floats, Integers, Particles, Quarks
from jettagger.simulation.jets import MAX_AXES, Jets
from jettagger.simulation.options import SimulationOptions
from jettagger.simulation.processes import LABELS, PROCESSES
from jettagger.simulation.tracking import ELECTRON, HADRON, MUON, PHOTON

JETS_AN_EVENT = 2
"""Only so many leading jets of an event are looked at."""

ABOVE_PT, BEYOND_ETA, UNMATCHED = "pT above the range", "|eta| beyond the range", "decay not inside the jet"
NO_GENERATED, SURPLUS = "no generator-level jet", "beyond the number asked for"
REASONS = (ABOVE_PT, BEYOND_ETA, UNMATCHED, NO_GENERATED, SURPLUS)
"""Why a jet above the lower pT limit was not written."""


@dataclass(frozen=True)
class JetTable:
    """Rows to be written: J jets with `counts` particles each."""

    jet: dict[str, NDArray[Any]]
    """Branches with one value a jet."""
    particle: dict[str, NDArray[np.float32]]
    """Branches with one value a particle, flat."""
    counts: Integers
    """Particles of each jet."""

    def __len__(self) -> int:
        return len(self.counts)

    def head(self, jets: int) -> "JetTable":
        """The first `jets` jets."""
        particles = int(self.counts[:jets].sum())
        return JetTable(
            {name: values[:jets] for name, values in self.jet.items()},
            {name: values[:particles] for name, values in self.particle.items()},
            self.counts[:jets],
        )

    def tail(self, jets: int) -> "JetTable":
        """All but the first `jets` jets."""
        particles = int(self.counts[:jets].sum())
        return JetTable(
            {name: values[jets:] for name, values in self.jet.items()},
            {name: values[particles:] for name, values in self.particle.items()},
            self.counts[jets:],
        )


@dataclass(frozen=True)
class Accounts:
    """What became of a block."""

    events: int
    """Events generated."""
    tried: int
    """Phase-space points tried."""
    cross_section: float
    """Cross-section of the generated events in pb."""
    weight: float
    """Sum of the weights of the generated events."""
    rejected: dict[str, int]
    """Jets not written, for each of `REASONS`."""


def process_block(block: Block, number: int, options: SimulationOptions) -> tuple[JetTable, Accounts]:
    """The accepted jets of block `number`, in order of event and falling pT."""
    random = randomness.numpy_generator(options.generator_key, "detector", number)
    candidates = detect(block.visible, options, random)
    events = len(block.weight)
    reconstructed = clustering.anti_kt(candidates, events, options.radius, options.pt[0])
    reconstructed = reconstructed.select(_rank(reconstructed.event) < JETS_AN_EVENT)
    keep, rejected = _select(reconstructed, block.quarks, options)
    chosen = reconstructed.select(keep)
    generated = clustering.anti_kt(
        block.visible.select(_near(chosen, block.visible, events, 2 * options.radius)),
        events,
        options.radius,
        0.4 * options.pt[0],
    )
    partner = _nearest(chosen, generated, options.radius / 2)
    rejected[NO_GENERATED] = int((partner < 0).sum())
    chosen, truth = chosen.select(partner >= 0), generated.select(partner[partner >= 0])
    accounts = Accounts(events, block.tried, block.cross_section, float(block.weight.sum()), rejected)
    return _table(chosen, truth, candidates, block, number, options), accounts


def event_numbers(options: SimulationOptions, block: int, event: Integers) -> Integers:
    """A positive number for each event of a block: 31 bits name the sample's events, 32 bits the event.

    Samples of other seeds, processes or generator options have other numbers; the number of jets, workers
    and the detector's scale factors do not enter, so that equal events have equal numbers.
    """
    return ((options.generator_key >> 32) << 32) + block * BLOCK_EVENTS + event.astype(np.int64)


def _rank(event: Integers) -> Integers:
    """Position of each jet within its event."""
    return np.arange(len(event)) - np.searchsorted(event, event)


def _select(
    jets: Jets, quarks: Quarks | None, options: SimulationOptions
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which jets pass, and how many fall to each reason; a jet counts for its first reason only."""
    failures = {
        ABOVE_PT: jets.pt >= options.pt[1],
        BEYOND_ETA: np.abs(jets.eta) >= options.eta_max,
        UNMATCHED: ~_contains_decay(jets, quarks, options.radius),
    }
    alive, rejected = np.ones(len(jets), dtype=bool), dict.fromkeys(REASONS, 0)
    for reason, failed in failures.items():
        rejected[reason] = int((alive & failed).sum())
        alive &= ~failed
    return alive, rejected


def _near(jets: Jets, particles: Particles, events: int, distance: float) -> NDArray[np.bool_]:
    """Particles within `distance` of a jet of their event: all that can end up in a jet at its place."""
    near = np.zeros(len(particles), dtype=bool)
    eta = np.arcsinh(particles.pz / np.hypot(particles.px, particles.py))
    phi = np.arctan2(particles.py, particles.px)
    rank = _rank(jets.event)
    for position in range(JETS_AN_EVENT):
        centre = np.full((2, events), np.inf)
        centre[:, jets.event[rank == position]] = jets.eta[rank == position], jets.phi[rank == position]
        close = np.flatnonzero(np.abs(eta - centre[0, particles.event]) < distance)
        d_phi = delta_phi(phi[close], centre[1, particles.event[close]])
        near[close] |= np.abs(d_phi) < distance
    return near


def _contains_decay(jets: Jets, quarks: Quarks | None, radius: float) -> NDArray[np.bool_]:
    """Jets with all decay quarks of a resonance within `radius` of the axis; all jets without matching."""
    contained = np.zeros(len(jets), dtype=bool)
    if quarks is None:
        return ~contained
    for position in range(int(np.bincount(quarks.event).max())):
        # The position-th resonance of each jet's event; events without one repeat the last of another event.
        row = np.minimum(np.searchsorted(quarks.event, jets.event) + position, len(quarks.event) - 1)
        distance = delta_r(quarks.eta[row], quarks.phi[row], jets.eta[:, None], jets.phi[:, None])
        contained |= (quarks.event[row] == jets.event) & (distance < radius).all(axis=1)
    return contained


def _nearest(jets: Jets, others: Jets, limit: float) -> Integers:
    """Index in `others` of the nearest jet of the same event within `limit`; -1 where there is none."""
    first = np.searchsorted(others.event, jets.event)
    last = np.searchsorted(others.event, jets.event, side="right")
    best, nearest = np.full(len(jets), limit), np.full(len(jets), -1)
    for position in range(int((last - first).max(initial=0))):
        row = np.minimum(first + position, len(others) - 1)
        distance = delta_r(jets.eta, jets.phi, others.eta[row], others.phi[row])
        closer = (first + position < last) & (distance < best)
        best, nearest = np.where(closer, distance, best), np.where(closer, row, nearest)
    return nearest


def _table(
    jets: Jets, truth: Jets, candidates: Candidates, block: Block, number: int, options: SimulationOptions
) -> JetTable:
    """All branches. Particles fall in pT within each jet."""
    import awkward as ak

    counts = ak.to_numpy(ak.num(jets.constituents)).astype(np.int64)
    owner = np.repeat(np.arange(len(jets)), counts)
    members = candidates.select(ak.to_numpy(ak.flatten(jets.constituents)).astype(np.int64))
    order = np.lexsort((-np.hypot(members.px, members.py), owner))
    members = members.select(order)
    shape = clustering.substructure(members, counts, options.radius)
    columns: dict[str, Floats] = {
        "jet_pt": jets.pt,
        "jet_eta": jets.eta,
        "jet_phi": jets.phi,
        "jet_energy": jets.energy,
        "jet_mass": _mass(jets),
        "jet_nparticles": counts,
        "jet_sdmass": shape.soft_drop_mass,
        **{f"jet_tau{axes + 1}": shape.tau[:, axes] for axes in range(MAX_AXES)},
        "gen_jet_pt": truth.pt,
        "gen_jet_mass": _mass(truth),
        "gen_jet_energy": truth.energy,
        "gen_weight": block.weight[jets.event],
    }
    label = PROCESSES[options.process].label
    jet: dict[str, NDArray[Any]] = {"event_number": event_numbers(options, number, jets.event)}
    jet |= {name: values.astype(np.float32) for name, values in columns.items()}
    jet |= {f"label_{name}": np.full(len(jets), name == label) for name in LABELS}
    jet["label_QCD"] = jet["label_QCD"].astype(np.float32)  # JetClass has this one as a float
    return JetTable(jet, _particle_columns(members, jets, owner), counts)


def _mass(jets: Jets) -> Floats:
    return np.asarray(invariant_mass(jets.energy, jets.px, jets.py, jets.pz))


def _particle_columns(members: Candidates, jets: Jets, owner: Integers) -> dict[str, NDArray[np.float32]]:
    """The part_* branches; deta is positive away from the detector's centre, as in JetClass."""
    eta = np.arcsinh(members.pz / np.hypot(members.px, members.py))
    phi = np.arctan2(members.py, members.px)
    columns = {
        "part_px": members.px,
        "part_py": members.py,
        "part_pz": members.pz,
        "part_energy": members.energy,
        "part_deta": np.where(jets.eta > 0, 1.0, -1.0)[owner] * (eta - jets.eta[owner]),
        "part_dphi": delta_phi(phi, jets.phi[owner]),
        "part_d0val": members.d0,
        "part_d0err": members.d0_error,
        "part_dzval": members.dz,
        "part_dzerr": members.dz_error,
        "part_charge": members.charge,
        "part_isChargedHadron": members.species == HADRON,
        "part_isNeutralHadron": members.species == NEUTRAL_HADRON,
        "part_isPhoton": members.species == PHOTON,
        "part_isElectron": members.species == ELECTRON,
        "part_isMuon": members.species == MUON,
    }
    return {name: np.asarray(values).astype(np.float32) for name, values in columns.items()}
