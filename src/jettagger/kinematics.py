"""Kinematics of four-vectors, in GeV and rad, on NumPy and awkward arrays alike.

Coordinates: x, y transverse, z along the beam; phi in [-pi, pi]; eta = asinh(pz / pT).
"""

from typing import Any

import numpy as np

# NumPy or awkward array, or a scalar: awkward implements NumPy's universal functions.
Array = Any


def delta_phi(phi_1: Array, phi_2: Array) -> Array:
    """phi_1 - phi_2 in rad, wrapped into [-pi, pi]; a difference within it is left as exact as it came."""
    difference = phi_1 - phi_2
    return difference - 2 * np.pi * np.rint(difference / (2 * np.pi))


def delta_r(eta_1: Array, phi_1: Array, eta_2: Array, phi_2: Array) -> Array:
    """Angular distance sqrt(d_eta**2 + d_phi**2)."""
    return np.hypot(eta_1 - eta_2, delta_phi(phi_1, phi_2))


def transverse_momentum(px: Array, py: Array) -> Array:
    """pT in GeV."""
    return np.hypot(px, py)


def pseudorapidity(px: Array, py: Array, pz: Array) -> Array:
    """eta = asinh(pz / pT); +-inf along the beam, nan for a vector of length zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.arcsinh(pz / np.hypot(px, py))


def azimuth(px: Array, py: Array) -> Array:
    """phi in [-pi, pi] rad; 0 for a vector of length zero."""
    return np.arctan2(py, px)


def invariant_mass(energy: Array, px: Array, py: Array, pz: Array) -> Array:
    """m = sqrt(E**2 - p**2) in GeV; a space-like vector (rounding, smearing) gives 0."""
    return np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0.0))
