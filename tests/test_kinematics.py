"""Values by hand, boundaries, and the same answer on NumPy and awkward arrays."""

import math
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettagger import kinematics

PI = math.pi
angles = st.floats(-PI, PI)
momenta = st.floats(-1e3, 1e3)


@pytest.mark.parametrize(
    ("phi_1", "phi_2", "expected"),
    [
        (1.0, 0.25, 0.75),
        (3.0, -3.0, 6 - 2 * PI),
        (-3.0, 3.0, 2 * PI - 6),
        (0.0, 0.0, 0.0),
        (7 * PI, 0.5, PI - 0.5),
    ],
)
def test_delta_phi_by_hand(phi_1: float, phi_2: float, expected: float) -> None:
    assert kinematics.delta_phi(phi_1, phi_2) == pytest.approx(expected, abs=1e-14)


@given(angles, angles)
def test_delta_phi_is_wrapped_odd_and_the_same_angle(phi_1: float, phi_2: float) -> None:
    difference = kinematics.delta_phi(phi_1, phi_2)
    assert -PI <= difference <= PI
    assert difference == -kinematics.delta_phi(phi_2, phi_1)
    assert math.sin(difference) == pytest.approx(math.sin(phi_1 - phi_2), abs=1e-14)
    assert math.cos(difference) == pytest.approx(math.cos(phi_1 - phi_2), abs=1e-14)


def test_delta_phi_stays_in_range_in_float32_and_keeps_small_differences() -> None:
    edge = np.float32(PI)
    around = np.array([edge, -edge, np.nextafter(edge, np.float32(4)), -np.nextafter(edge, np.float32(4))])
    assert np.all(np.abs(kinematics.delta_phi(around, np.float32(0))) <= edge)
    small = np.array([1e-6, -3e-8, 1e-20], dtype=np.float32)
    np.testing.assert_array_equal(kinematics.delta_phi(small, np.float32(0)), small)
    assert kinematics.delta_phi(small, np.float32(0)).dtype == np.float32


def test_delta_r_by_hand() -> None:
    assert kinematics.delta_r(0.0, 0.0, 3.0, 0.0) == 3
    assert kinematics.delta_r(1.0, 3.0, 1.0, -3.0) == pytest.approx(2 * PI - 6)
    assert kinematics.delta_r(0.3, 0.4, 0.0, 0.0) == pytest.approx(0.5)


def test_transverse_momentum_pseudorapidity_azimuth_by_hand() -> None:
    assert kinematics.transverse_momentum(3.0, -4.0) == 5
    assert kinematics.pseudorapidity(3.0, 4.0, 5 * math.sinh(1.5)) == pytest.approx(1.5)
    assert kinematics.azimuth(-1.0, 0.0) == pytest.approx(PI)
    assert kinematics.azimuth(0.0, -2.0) == pytest.approx(-PI / 2)
    assert kinematics.azimuth(0.0, 0.0) == 0


def test_pseudorapidity_along_the_beam_and_of_nothing_without_a_warning() -> None:
    eta = kinematics.pseudorapidity(np.zeros(3), np.zeros(3), np.array([2.0, -2.0, 0.0]))
    assert eta[0] == math.inf
    assert eta[1] == -math.inf
    assert math.isnan(eta[2])


def test_invariant_mass() -> None:
    assert kinematics.invariant_mass(5.0, 0.0, 3.0, 0.0) == 4
    assert kinematics.invariant_mass(5.0, 3.0, 4.0, 0.0) == 0
    assert kinematics.invariant_mass(1.0, 3.0, 4.0, 0.0) == 0, "space-like"
    assert math.isnan(kinematics.invariant_mass(math.nan, 0.0, 0.0, 0.0))


@given(momenta, momenta, momenta, st.floats(0, 500))
def test_mass_comes_back_from_the_energy(px: float, py: float, pz: float, mass: float) -> None:
    energy = math.sqrt(px**2 + py**2 + pz**2 + mass**2)
    assert kinematics.invariant_mass(energy, px, py, pz) == pytest.approx(mass, abs=1e-4, rel=1e-6)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (kinematics.delta_phi, 2),
        (kinematics.delta_r, 4),
        (kinematics.transverse_momentum, 2),
        (kinematics.pseudorapidity, 3),
        (kinematics.azimuth, 2),
        (kinematics.invariant_mass, 4),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_awkward_arrays_give_what_numpy_gives_and_keep_their_type(
    function: Any, arguments: int, dtype: type
) -> None:
    flat = np.random.default_rng(1).uniform(-3, 3, size=(arguments, 6)).astype(dtype)
    jagged = [ak.unflatten(row, [2, 0, 3, 1]) for row in flat]
    result = function(*jagged)
    assert ak.num(result).tolist() == [2, 0, 3, 1]
    np.testing.assert_array_equal(ak.to_numpy(ak.flatten(result)), function(*flat))
    assert function(*flat).dtype == dtype
