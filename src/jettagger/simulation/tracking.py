"""Tracks: efficiency, momentum and impact-parameter resolution of Delphes' CMS card (arXiv:1307.6346).

Efficiency and resolution are functions of the generated pT and eta. The impact-parameter resolution is the
step table of arXiv:1405.6569, fig. 15 (`impact_parameter_resolution.csv`); below 0.18 GeV its first bin.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jettagger.simulation.generator import Floats, Integers, Particles
from jettagger.simulation.options import SimulationOptions
from jettagger.simulation.propagation import Flight

ELECTRON, MUON, PHOTON = 11, 13, 22
HADRON = 211
"""Code of a charged hadron in `species`."""

# species: efficiency above 0.1, 1 and 100 (electrons) or 1000 GeV (muons), for |eta| below 1.5 and 2.5
_EFFICIENCY = {
    HADRON: ((0.70, 0.95, 0.95), (0.60, 0.85, 0.85)),
    ELECTRON: ((0.73, 0.95, 0.99), (0.50, 0.83, 0.90)),
    MUON: ((0.75, 0.99, 0.99), (0.70, 0.98, 0.98)),
}
_HIGH_PT = {HADRON: np.inf, ELECTRON: 100.0, MUON: 1000.0}
# species: (constant, slope per GeV) of the relative pT resolution for |eta| below 0.5, 1.5 and 2.5
_MOMENTUM = {
    HADRON: ((0.06, 1.3e-3), (0.10, 1.7e-3), (0.25, 3.1e-3)),
    ELECTRON: ((0.03, 1.3e-3), (0.05, 1.7e-3), (0.15, 3.1e-3)),
    MUON: ((0.01, 1.0e-4), (0.015, 1.5e-4), (0.025, 3.5e-4)),
}
# Every charged hadron gets the pion's mass: a detector cannot tell, and the true mass would give it away.
_MASS = {HADRON: 0.13957, ELECTRON: 0.000511, MUON: 0.10566}


@dataclass(frozen=True)
class Tracks:
    """Reconstructed tracks of a block; T tracks."""

    event: Integers
    species: Integers
    """`HADRON`, `ELECTRON` or `MUON`."""
    charge: Floats
    pt: Floats
    """Measured transverse momentum in GeV."""
    eta: Floats
    phi: Floats
    energy: Floats
    """Measured energy in GeV."""
    resolution: Floats
    """Relative pT resolution."""
    d0: Floats
    """Measured impact parameters and their resolutions in mm."""
    dz: Floats
    d0_error: Floats
    dz_error: Floats
    flight_eta: Floats
    """Where the track meets the calorimeters."""
    flight_phi: Floats

    def select(self, keep: NDArray[np.bool_]) -> "Tracks":
        """The tracks that a mask picks."""
        return Tracks(**{name: values[keep] for name, values in vars(self).items()})


def species(pdg: Integers) -> Integers:
    """`ELECTRON`, `MUON` or `HADRON`, for charged particles."""
    code = np.abs(pdg)
    return np.where((code == ELECTRON) | (code == MUON), code, HADRON)


def efficiency(kind: Integers, pt: Floats, eta: Floats) -> Floats:
    """Probability in [0, 1] that a charged particle leaves a track; pT in GeV. 0 beyond |eta| 2.5."""
    result = np.zeros_like(pt)
    for code, ranges in _EFFICIENCY.items():
        steps = np.array(ranges)[(np.abs(eta) > 1.5).astype(int)]
        column = (pt > 1.0).astype(int) + (pt > _HIGH_PT[code])
        value = np.take_along_axis(steps, column[:, None], axis=1)[:, 0]
        if code == MUON:
            value = value * np.exp(np.where(pt > _HIGH_PT[MUON], 0.5 - 5.0e-4 * pt, 0.0))
        result = np.where(kind == code, value, result)
    return np.where((pt > 0.1) & (np.abs(eta) <= 2.5), result, 0.0)


def momentum_resolution(kind: Integers, pt: Floats, eta: Floats) -> Floats:
    """sigma(pT) / pT; pT in GeV; beyond |eta| 2.5 the last range holds."""
    result = np.zeros_like(pt)
    region = np.searchsorted([0.5, 1.5], np.abs(eta))
    for code, ranges in _MOMENTUM.items():
        constant, slope = np.array(ranges)[region].T
        result = np.where(kind == code, np.hypot(constant, slope * pt), result)
    return result


def impact_parameter_resolution(variable: Literal["D0", "DZ"], pt: Floats, eta: Floats) -> Floats:
    """sigma(d0) or sigma(dz) in mm from the table; pT in GeV; beyond |eta| 2.5 the last range holds."""
    eta_edges, pt_edges, sigma = _table(variable)
    region = np.clip(np.searchsorted(eta_edges, np.abs(eta)) - 1, 0, len(sigma) - 1)
    step = np.clip(np.searchsorted(pt_edges, pt) - 1, 0, sigma.shape[1] - 1)
    return np.asarray(sigma[region, step])


def log_normal(mean: Floats, sigma: Floats, gaussian: Floats) -> Floats:
    """Log-normal numbers of given mean and standard deviation from normal ones; 0 where `mean` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        width = np.sqrt(np.log1p((sigma / mean) ** 2))
        return np.where(mean > 0, mean * np.exp(width * gaussian - 0.5 * width**2), 0.0)


def reconstruct(
    particles: Particles, flight: Flight, options: SimulationOptions, random: np.random.Generator
) -> Tracks:
    """Tracks of charged particles. Numbers are drawn for all of them: scaled detectors stay paired."""
    pt, count = np.hypot(particles.px, particles.py), len(particles)
    eta, phi = np.arcsinh(particles.pz / pt), np.arctan2(particles.py, particles.px)
    uniform, gaussian = random.random(count), random.standard_normal((3, count))
    kind = species(particles.pdg)
    resolution = momentum_resolution(kind, pt, eta) * options.factor("track_momentum")
    measured = log_normal(pt, resolution * pt, gaussian[0])
    d0_error = impact_parameter_resolution("D0", measured, eta) * options.factor("d0")
    dz_error = impact_parameter_resolution("DZ", measured, eta) * options.factor("dz")
    mass = np.select([kind == code for code in _MASS], list(_MASS.values()))
    tracks = Tracks(
        event=particles.event,
        species=kind,
        charge=particles.charge,
        pt=measured,
        eta=eta,
        phi=phi,
        energy=np.hypot(measured * np.cosh(eta), mass),
        resolution=resolution,
        d0=flight.d0 + d0_error * gaussian[1],
        dz=flight.dz + dz_error * gaussian[2],
        d0_error=d0_error,
        dz_error=dz_error,
        flight_eta=flight.eta,
        flight_phi=flight.phi,
    )
    return tracks.select(uniform < efficiency(kind, pt, eta) * options.factor("track_efficiency"))


@cache
def _table(variable: str) -> tuple[Floats, Floats, Floats]:
    """Edges in |eta| and pT, and sigma in mm with one row per |eta| range."""
    file = resources.files("jettagger.simulation") / "impact_parameter_resolution.csv"
    with file.open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["var"] == variable]
    eta_low = sorted({float(row["eta_lo"]) for row in rows})
    pt_low = sorted({float(row["pt_lo"]) for row in rows})
    sigma = np.array([float(row["sigma_mm"]) for row in rows]).reshape(len(eta_low), len(pt_low))
    return np.array(eta_low), np.array(pt_low), sigma
