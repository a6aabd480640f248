"""Calorimeters and energy flow, after Delphes' SimpleCalorimeter with the numbers of its CMS card.

Each calorimeter sums what reaches a cell, smears the sum (log-normal), drops cells below an energy and a
significance, and compares it with the tracks that point at the cell. A significant excess over the tracks
is a neutral particle, massless, at a random place within the cell; without one, the tracks are scaled to the
weighted mean of track and cell energy. Electrons and photons end in the ECAL, K0S and Lambda leave 30 % there
and 70 % in the HCAL, all other hadrons end in the HCAL; muons leave nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jettagger.simulation.generator import Floats, Integers
from jettagger.simulation.tracking import log_normal


@dataclass(frozen=True)
class Calorimeter:
    """One calorimeter: cells symmetric in eta, resolution, thresholds."""

    eta_edges: Floats
    """Edges of the cells in |eta|, from 0 to 5."""
    phi_cells: Integers
    """Number of cells in phi for each range in |eta|."""
    resolution: Callable[[Floats, Floats], Floats]
    """sigma(E) in GeV as a function of E in GeV and |eta|."""
    minimum_energy: float
    """Least energy of a cell, and of its excess over the tracks, in GeV."""
    minimum_significance: float
    """Least energy, and excess, in units of its resolution."""


@dataclass(frozen=True)
class Deposits:
    """Energies in GeV that arrive at places (eta, phi) of a calorimeter."""

    event: Integers
    eta: Floats
    phi: Floats
    energy: Floats


@dataclass(frozen=True)
class TrackEnergies:
    """Tracks that point at a calorimeter: place, measured energy in GeV, its relative resolution."""

    event: Integers
    eta: Floats
    phi: Floats
    energy: Floats
    resolution: Floats


def ecal_resolution(energy: Floats, eta: Floats) -> Floats:
    """sigma(E) in GeV of the ECAL; beyond |eta| 2.5 that of the forward calorimeter."""
    eta = np.abs(eta)
    shower = np.sqrt((0.008 * energy) ** 2 + 0.11**2 * energy + 0.40**2)
    central = np.where(eta <= 1.5, 1 + 0.64 * eta**2, 2.16 + 5.6 * (eta - 2) ** 2) * shower
    return np.where(eta <= 2.5, central, np.sqrt((0.107 * energy) ** 2 + 2.08**2 * energy))


def hcal_resolution(energy: Floats, eta: Floats) -> Floats:
    """sigma(E) in GeV of the HCAL; beyond |eta| 3 that of the forward calorimeter."""
    central = np.sqrt((0.05 * energy) ** 2 + 1.5**2 * energy)
    return np.where(np.abs(eta) <= 3, central, np.sqrt((0.13 * energy) ** 2 + 2.7**2 * energy))


def _grid(*parts: tuple[list[float], int]) -> tuple[Floats, Integers]:
    """Edges and cells in phi from parts of (upper edges in |eta|, cells in phi)."""
    edges = np.concatenate([[0.0], *(upper for upper, _ in parts)])
    return edges, np.concatenate([np.full(len(upper), cells) for upper, cells in parts])


_FORWARD_EDGES = [3.125, 3.3, 3.475, 3.65, 3.825, 4.0, 4.175, 4.35]
_ENDCAP_EDGES = [1.74, 1.83, 1.93, 2.043, 2.172, 2.322, 2.5, 2.65, 2.868, 2.95]
_LAST_EDGES = [4.525, 4.7, 5.0]

ECAL = Calorimeter(
    *_grid(([0.0174 * step for step in range(1, 171)], 360), (_FORWARD_EDGES, 36), (_LAST_EDGES, 18)),
    resolution=ecal_resolution,
    minimum_energy=0.5,
    minimum_significance=2.0,
)
HCAL = Calorimeter(
    *_grid(
        ([0.087 * step for step in range(1, 20)], 72),
        (_ENDCAP_EDGES + _FORWARD_EDGES, 36),
        (_LAST_EDGES, 18),
    ),
    resolution=hcal_resolution,
    minimum_energy=1.0,
    minimum_significance=1.0,
)


def measure(
    calorimeter: Calorimeter,
    deposits: Deposits,
    tracks: TrackEnergies,
    factor: float,
    random: np.random.Generator,
) -> tuple[Deposits, Floats]:
    """Neutral particles that the calorimeter adds, and a factor on the energy of each track.

    Deposits lie within |eta| 5. `factor` multiplies the resolution. Every track's own particle is among the
    deposits. Which numbers are drawn depends on the deposits alone, so that scaled detectors stay paired.
    """
    deposit_cell = _cell(calorimeter, deposits.event, deposits.eta, deposits.phi)
    cells, where = np.unique(deposit_cell, return_inverse=True)
    event, eta_index, phi_index = _indices(cells)
    gaussian, uniform = random.standard_normal(len(cells)), random.random((2, len(cells)))
    eta, phi = _place(calorimeter, eta_index, phi_index, uniform)
    true: Floats = np.bincount(where, deposits.energy, len(cells)).astype(float)
    energy = log_normal(true, factor * calorimeter.resolution(true, eta), gaussian)
    sigma = factor * calorimeter.resolution(energy, eta)
    energy = np.where(_passes(calorimeter, energy, sigma), energy, 0.0)

    hit = np.searchsorted(cells, _cell(calorimeter, tracks.event, tracks.eta, tracks.phi))
    track_energy: Floats = np.bincount(hit, tracks.energy, len(cells)).astype(float)
    variances = (tracks.resolution * tracks.energy) ** 2
    track_variance: Floats = np.bincount(hit, variances, len(cells)).astype(float)
    excess = np.maximum(energy - track_energy, 0.0)
    neutral = _passes(calorimeter, excess, np.sqrt(track_variance + sigma**2))
    rescale = np.where(neutral, 1.0, _combined(track_energy, track_variance, energy, sigma))
    return Deposits(event[neutral], eta[neutral], phi[neutral], excess[neutral]), rescale[hit]


def _passes(calorimeter: Calorimeter, energy: Floats, sigma: Floats) -> NDArray[np.bool_]:
    enough = energy > calorimeter.minimum_energy
    return np.asarray(enough & (energy > calorimeter.minimum_significance * sigma))


def _combined(track_energy: Floats, track_variance: Floats, energy: Floats, sigma: Floats) -> Floats:
    """Mean of track and cell energy weighted by inverse variance, over the track energy."""
    with np.errstate(divide="ignore", invalid="ignore"):
        # A cell below threshold measures nothing; perfect tracks (factor 0) need no help.
        share = np.where((energy > 0) & (sigma > 0), track_variance / (track_variance + sigma**2), 0.0)
        return np.where(track_energy > 0, 1 + share * (energy / track_energy - 1), 1.0)


_ETA_STRIDE, _EVENT_STRIDE = 1 << 9, 1 << 19


def _cell(calorimeter: Calorimeter, event: Integers, eta: Floats, phi: Floats) -> Integers:
    """A number for each (event, cell): event, signed range in eta, range in phi."""
    last = len(calorimeter.phi_cells) - 1
    eta_range = np.minimum(np.searchsorted(calorimeter.eta_edges, np.abs(eta), side="right") - 1, last)
    count = calorimeter.phi_cells[eta_range]
    phi_range = np.minimum(((phi + np.pi) / (2 * np.pi) * count).astype(np.int64), count - 1)
    signed = np.where(eta < 0, 2 * eta_range + 1, 2 * eta_range)
    return np.asarray(event * _EVENT_STRIDE + signed * _ETA_STRIDE + phi_range)


def _indices(cells: Integers) -> tuple[Integers, Integers, Integers]:
    return cells // _EVENT_STRIDE, cells % _EVENT_STRIDE // _ETA_STRIDE, cells % _ETA_STRIDE


def _place(
    calorimeter: Calorimeter, signed: Integers, phi_range: Integers, uniform: Floats
) -> tuple[Floats, Floats]:
    """A random (eta, phi) within each cell."""
    eta_range = signed // 2
    low, high = calorimeter.eta_edges[eta_range], calorimeter.eta_edges[eta_range + 1]
    eta = np.where(signed % 2, -1.0, 1.0) * (low + uniform[0] * (high - low))
    phi = (phi_range + uniform[1]) / calorimeter.phi_cells[eta_range] * 2 * np.pi - np.pi
    return eta, phi
