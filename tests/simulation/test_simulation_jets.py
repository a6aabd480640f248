"""Soft drop and N-subjettiness against values worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from jettagger.simulation.jets import Substructure, anti_kt, substructure

R = 0.8


def massless(*particles: tuple[float, float, float]) -> SimpleNamespace:
    """Particles of one event from (pT, eta, phi)."""
    pt, eta, phi = np.array(particles, dtype=float).reshape(-1, 3).T
    return SimpleNamespace(
        event=np.zeros(len(pt), int),
        px=pt * np.cos(phi),
        py=pt * np.sin(phi),
        pz=pt * np.sinh(eta),
        energy=pt * np.cosh(eta),
    )


def shape(*particles: tuple[float, float, float]) -> Substructure:
    return substructure(massless(*particles), np.array([len(particles)]), R)


def test_tau_of_two_prongs() -> None:
    tau = shape((300, 0.0, 0.0), (100, 0.4, 0.0)).tau[0]
    # The winner takes all: the one axis is the harder particle.
    assert tau == pytest.approx([100 * 0.4 / (400 * R), 0, 0, 0])


def test_tau_of_three_prongs_with_a_collinear_pair() -> None:
    tau = shape((300, 0.0, 0.0), (100, 0.4, 0.0), (50, 0.4, 0.1)).tau[0]
    distances = 100 * 0.4 + 50 * np.hypot(0.4, 0.1)
    assert tau == pytest.approx([distances / (450 * R), 50 * 0.1 / (450 * R), 0, 0])


def test_tau_is_zero_with_fewer_constituents_than_axes_and_jets_are_independent() -> None:
    five = [(100, 0.0, 0.0), (90, 0.3, 0.1), (80, -0.3, 0.2), (70, 0.1, -0.4), (60, -0.2, -0.3)]
    alone = shape(*five).tau[0]
    assert (alone > 0).all()
    assert (np.diff(alone) < 0).all()
    mixed = substructure(massless((10, 0.1, 0.2), *five, (10, 0, 0), (5, 0.2, 0)), np.array([1, 5, 2]), R)
    assert mixed.tau[0] == pytest.approx([0, 0, 0, 0], abs=1e-9)
    assert mixed.tau[1] == pytest.approx(alone)
    assert mixed.tau[2] == pytest.approx([5 * 0.2 / (15 * R), 0, 0, 0], abs=1e-9)


def test_tau_uses_the_short_way_round_in_phi() -> None:
    tau = shape((300, 0.0, 3.1), (100, 0.0, -3.1)).tau[0]
    assert tau[0] == pytest.approx(100 * (2 * np.pi - 6.2) / (400 * R))


@pytest.mark.parametrize(("soft", "kept"), [(0.05, False), (0.09, False), (0.11, True), (0.4, True)])
def test_soft_drop_removes_a_prong_below_a_tenth(soft: float, kept: bool) -> None:
    z, angle, pt = soft, 0.5, 500.0
    mass = shape(((1 - z) * pt, 0.0, 0.0), (z * pt, angle, 0.0)).soft_drop_mass[0]
    expected = pt * np.sqrt(2 * z * (1 - z) * (np.cosh(angle) - 1)) if kept else 0.0
    assert mass == pytest.approx(expected, abs=1e-3)


def test_anti_kt_orders_jets_by_pt_and_numbers_their_particles_over_the_block() -> None:
    block = massless((100, 0.0, 0.0), (500, 0.0, 3.0), (20, 0.3, 0.0), (300, 0.0, 1.0))
    block.event = np.array([0, 0, 0, 2])
    jets = anti_kt(block, 3, R, 50.0)
    assert jets.event.tolist() == [0, 0, 2]
    assert jets.pt == pytest.approx([500, 120, 300], rel=0.01)
    assert [sorted(members) for members in jets.constituents.to_list()] == [[1], [0, 2], [3]]
