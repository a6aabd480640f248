"""The detector: generated particles in, energy-flow candidates out, all events of a block at once.

A simplified Delphes (arXiv:1307.6346) with its CMS card's numbers: helices to the calorimeters
(`propagation`), tracks (`tracking`), cells and energy flow (`calorimeter`). Simplified against Delphes:

- efficiencies and track resolutions are looked up at the momentum's eta, Delphes uses the track's outer end;
- a track's direction is the true one at its birth, not smeared; charged hadrons carry the pion's mass;
- no pile-up, no isolation, no photon conversions, no energy loss, no interactions before the calorimeters;
- d0 and dz are smeared independently, by a table in pT and |eta| that holds for hadrons and leptons alike;
- leptons are always identified, and never mistaken for a hadron.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jettagger.simulation import calorimeter, propagation, tracking
from jettagger.simulation.calorimeter import ECAL, HCAL, Calorimeter, Deposits, TrackEnergies
from jettagger.simulation.generator import Floats, Integers, Particles
from jettagger.simulation.options import SimulationOptions
from jettagger.simulation.propagation import Flight
from jettagger.simulation.tracking import ELECTRON, HADRON, MUON, PHOTON, Tracks

NEUTRAL_HADRON = 0
"""Code of a neutral hadron in `species`, as in Delphes."""

_SHARED_BY_CALORIMETERS = (310, 3122)  # K0S and Lambda, where they are kept from decaying
_ECAL_SHARE = 0.3


@dataclass(frozen=True)
class Candidates:
    """Energy-flow candidates of a block, `event` ascending; impact parameters in mm, 0 for neutrals."""

    event: Integers
    species: Integers
    """`HADRON` (charged), `NEUTRAL_HADRON`, `PHOTON`, `ELECTRON` or `MUON`."""
    charge: Floats
    px: Floats
    py: Floats
    pz: Floats
    energy: Floats
    d0: Floats
    d0_error: Floats
    dz: Floats
    dz_error: Floats

    def select(self, keep: NDArray[np.bool_] | Integers) -> "Candidates":
        """The candidates that a mask or an index array picks."""
        return Candidates(**{name: values[keep] for name, values in vars(self).items()})

    def __len__(self) -> int:
        return len(self.event)


def detect(particles: Particles, options: SimulationOptions, random: np.random.Generator) -> Candidates:
    """What the detector makes of the visible particles of a block, near enough to jets within `eta_max`."""
    particles = particles.select(propagation.inside_tracker(particles))
    flight = propagation.propagate(particles)
    # Cells that a jet within eta_max can touch, and the coarsest cell more.
    near = np.abs(flight.eta) < min(options.eta_max + options.radius + 0.35, 5.0)
    particles, flight = particles.select(near), Flight(**{name: v[near] for name, v in vars(flight).items()})
    charged = particles.charge != 0
    charged_flight = Flight(**{name: values[charged] for name, values in vars(flight).items()})
    tracks = tracking.reconstruct(particles.select(charged), charged_flight, options, random)
    ecal = _ecal_fraction(particles.pdg)
    hcal = np.where(np.abs(particles.pdg) == MUON, 0.0, 1.0 - ecal)
    photons, electron_factor = _measure(
        ECAL, particles, flight, ecal, tracks, ELECTRON, options.factor("ecal_energy"), random
    )
    neutrals, hadron_factor = _measure(
        HCAL, particles, flight, hcal, tracks, HADRON, options.factor("hcal_energy"), random
    )
    parts = (_charged(tracks, electron_factor * hadron_factor), _neutral(photons, PHOTON))
    merged = (*parts, _neutral(neutrals, NEUTRAL_HADRON))
    joined = Candidates(
        **{name: np.concatenate([getattr(part, name) for part in merged]) for name in vars(merged[0])}
    )
    return joined.select(np.argsort(joined.event, kind="stable"))


def _ecal_fraction(pdg: Integers) -> Floats:
    code = np.abs(pdg)
    share = np.where(np.isin(code, _SHARED_BY_CALORIMETERS), _ECAL_SHARE, 0.0)
    return np.where((code == ELECTRON) | (code == PHOTON), 1.0, share)


def _measure(
    which: Calorimeter,
    particles: Particles,
    flight: Flight,
    fraction: Floats,
    tracks: Tracks,
    species: int,
    factor: float,
    random: np.random.Generator,
) -> tuple[Deposits, Floats]:
    """One calorimeter's neutral candidates, and the factor on each track (1 for those of other species)."""
    reaches = fraction > 0
    deposits = Deposits(
        particles.event[reaches],
        flight.eta[reaches],
        flight.phi[reaches],
        (fraction * particles.energy)[reaches],
    )
    pointing = tracks.species == species
    energies = TrackEnergies(
        tracks.event[pointing],
        tracks.flight_eta[pointing],
        tracks.flight_phi[pointing],
        tracks.energy[pointing],
        tracks.resolution[pointing],
    )
    neutral, rescale = calorimeter.measure(which, deposits, energies, factor, random)
    factors = np.ones(len(tracks.event))
    factors[pointing] = rescale
    return neutral, factors


def _charged(tracks: Tracks, factor: Floats) -> Candidates:
    return Candidates(
        event=tracks.event,
        species=tracks.species,
        charge=tracks.charge,
        px=factor * tracks.pt * np.cos(tracks.phi),
        py=factor * tracks.pt * np.sin(tracks.phi),
        pz=factor * tracks.pt * np.sinh(tracks.eta),
        energy=factor * tracks.energy,
        d0=tracks.d0,
        d0_error=tracks.d0_error,
        dz=tracks.dz,
        dz_error=tracks.dz_error,
    )


def _neutral(cells: Deposits, species: int) -> Candidates:
    pt, zeros = cells.energy / np.cosh(cells.eta), np.zeros(len(cells.event))
    return Candidates(
        event=cells.event,
        species=np.full(len(cells.event), species),
        charge=zeros,
        px=pt * np.cos(cells.phi),
        py=pt * np.sin(cells.phi),
        pz=pt * np.sinh(cells.eta),
        energy=cells.energy,
        d0=zeros,
        d0_error=zeros,
        dz=zeros,
        dz_error=zeros,
    )
