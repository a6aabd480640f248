"""Helices in the solenoid: impact parameters, and where a particle meets the calorimeters.

The field is 3.8 T along z in a cylinder of radius 1.29 m and half length 3.0 m (Delphes' CMS card). Multiple
scattering, energy loss and decays in flight after the generator's own are left out.

With u = (py, -px) / pT, q = +-1 and rho the radius of curvature, the centre of the circle is r + q rho u.
The signed impact parameter is d0 = (x py - y px) / pT at the point of closest approach to the z axis, which
is q (|centre| - rho) on a helix (Delphes' sign).
"""

from dataclasses import dataclass

import numpy as np

from jettagger.simulation.generator import Floats, Particles

FIELD = 3.8
"""Magnetic field in T."""
RADIUS = 1290.0
"""Radius of the tracker in mm."""
HALF_LENGTH = 3000.0
"""Half length of the tracker in mm."""


@dataclass(frozen=True)
class Flight:
    """Where particles pass the beam axis and where they leave the tracker."""

    d0: Floats
    """Signed transverse impact parameter in mm."""
    dz: Floats
    """z at the point of closest approach in mm."""
    eta: Floats
    """Pseudorapidity, seen from the origin, of the point where the particle leaves the tracker."""
    phi: Floats
    """Azimuth of that point in rad."""


def inside_tracker(particles: Particles) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Particles born within the tracker; those born outside are lost (as in Delphes)."""
    return (np.hypot(particles.x, particles.y) < RADIUS) & (np.abs(particles.z) < HALF_LENGTH)


def propagate(particles: Particles) -> Flight:
    """Flies particles born inside the tracker to its surface: helices if charged, straight lines if not."""
    pt = np.hypot(particles.px, particles.py)
    with np.errstate(divide="ignore"):
        # pT = 0.3 B rho in GeV, T, m; a neutral particle flies on a circle too large to matter (1e12 mm).
        rho = np.where(particles.charge == 0, 1e12, pt / (0.299792458e-3 * FIELD * np.abs(particles.charge)))
    q = np.where(particles.charge < 0, -1.0, 1.0)
    straight_d0 = (particles.x * particles.py - particles.y * particles.px) / pt
    along = (particles.x * particles.px + particles.y * particles.py) / pt
    radius_squared = particles.x**2 + particles.y**2
    centre = np.hypot(rho + q * straight_d0, along)
    d0 = q * (radius_squared + 2 * q * rho * straight_d0) / (centre + rho)
    length = rho * np.arctan2(along, rho + q * straight_d0)  # transverse path from closest approach to birth
    slope = particles.pz / pt
    dz = particles.z - length * slope
    exit_length = np.minimum(_to_barrel(d0, rho, centre), _to_endcap(dz, slope))
    x, y = _position(particles, q, rho, pt, exit_length - length)
    eta = np.arcsinh((dz + exit_length * slope) / np.hypot(x, y))
    return Flight(d0, dz, eta, np.arctan2(y, x))


def _to_barrel(d0: Floats, rho: Floats, centre: Floats) -> Floats:
    """Transverse path in mm from closest approach to the barrel; infinite for particles that curl up."""
    sine = np.sqrt(np.maximum(RADIUS**2 - d0**2, 0.0) / (4 * rho * centre))
    return np.where(sine < 1, 2 * rho * np.arcsin(np.minimum(sine, 1.0)), np.inf)


def _to_endcap(dz: Floats, slope: Floats) -> Floats:
    """Transverse path in mm from closest approach to the endcap on the side of `slope` = pz / pT."""
    with np.errstate(divide="ignore"):
        return (np.copysign(HALF_LENGTH, slope) - dz) / slope


def _position(
    particles: Particles, q: Floats, rho: Floats, pt: Floats, length: Floats
) -> tuple[Floats, Floats]:
    """Transverse position in mm after a transverse path `length` from the birth."""
    # Chord of an arc: the form is exact on a circle and keeps its precision on a straight line.
    half_turn = 0.5 * length / rho
    chord = 2 * rho * np.sin(half_turn)
    direction = np.arctan2(particles.py, particles.px) - q * half_turn
    return particles.x + chord * np.cos(direction), particles.y + chord * np.sin(direction)
