"""The detector against the formulas of Delphes' CMS card, on particles made by hand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettagger.simulation import propagation, tracking
from jettagger.simulation.calorimeter import ECAL, HCAL, Deposits, TrackEnergies, measure
from jettagger.simulation.detector import NEUTRAL_HADRON, Candidates, detect
from jettagger.simulation.generator import Particles
from jettagger.simulation.options import SimulationOptions
from jettagger.simulation.tracking import ELECTRON, HADRON, MUON, PHOTON

N = 40_000


def gun(pdg: int, charge: float, pt: float, eta: float, count: int = N, **vertex: float) -> Particles:
    """`count` events with one particle each, at random phi."""
    phi = np.random.default_rng(3).uniform(-np.pi, np.pi, count)
    ones = np.ones(count)
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta) * ones
    place = {name: vertex.get(name, 0.0) * ones for name in ("x", "y", "z")}
    energy = pt * np.cosh(eta) * ones
    return Particles(np.arange(count), pdg * ones.astype(int), charge * ones, px, py, pz, energy, **place)


def seen(particles: Particles, **scale: float) -> Candidates:
    options = SimulationOptions(process="QCD", jets=1, scale=scale)
    return detect(particles, options, np.random.default_rng(7))


@pytest.mark.parametrize(
    ("pdg", "pt", "eta", "expected"),
    [
        (211, 0.09, 0.3, 0.0),
        (211, 0.9, 0.3, 0.70),
        (211, 30, 1.2, 0.95),
        (211, 30, -2.0, 0.85),
        (-211, 0.5, 2.2, 0.60),
        (211, 30, 2.6, 0.0),
        (11, 30, 0.2, 0.95),
        (11, 150, 2.0, 0.90),
        (13, 0.5, 0.2, 0.75),
        (13, 30, 2.0, 0.98),
        (13, 2000, 0.2, 0.99 * np.exp(0.5 - 1.0)),
    ],
)
def test_tracking_efficiency(pdg: int, pt: float, eta: float, expected: float) -> None:
    candidates = seen(gun(pdg, -np.sign(pdg) if abs(pdg) < 20 else np.sign(pdg), pt, eta))
    found = (candidates.charge != 0).sum() / N
    assert found == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / N) + 1e-9)


@pytest.mark.parametrize(
    ("pdg", "pt", "eta", "expected"),
    [
        (211, 50, 0.2, np.hypot(0.06, 1.3e-3 * 50)),
        (211, 50, 1.0, np.hypot(0.10, 1.7e-3 * 50)),
        (211, 50, 2.0, np.hypot(0.25, 3.1e-3 * 50)),
        (11, 20, 0.2, np.hypot(0.03, 1.3e-3 * 20)),
        (13, 100, 1.0, np.hypot(0.015, 1.5e-4 * 100)),
    ],
)
def test_track_momentum_is_log_normal_with_the_cards_width(
    pdg: int, pt: float, eta: float, expected: float
) -> None:
    particles = gun(pdg, 1, pt, eta)
    options = SimulationOptions(process="QCD", jets=1)
    tracks = tracking.reconstruct(
        particles, propagation.propagate(particles), options, np.random.default_rng(1)
    )
    assert tracks.pt.mean() / pt == pytest.approx(1, abs=5 * expected / np.sqrt(len(tracks.pt)))
    assert tracks.pt.std() / pt == pytest.approx(expected, rel=0.03)
    assert np.log(tracks.pt / pt).std() == pytest.approx(np.sqrt(np.log1p(expected**2)), rel=0.02)


def test_a_scale_factor_widens_the_resolution_and_keeps_the_tracks() -> None:
    particles = gun(13, 1, 40, 0.2)
    nominal, wide = seen(particles), seen(particles, track_momentum=2.0, d0=3.0)
    assert len(nominal) == len(wide)
    spread = [np.std(np.hypot(found.px, found.py)) for found in (nominal, wide)]
    assert spread[1] / spread[0] == pytest.approx(2, rel=0.02)
    assert wide.d0.std() / nominal.d0.std() == pytest.approx(3, rel=0.02)
    assert wide.dz == pytest.approx(nominal.dz, rel=0.2)


@pytest.mark.parametrize(
    ("pt", "eta", "d0", "dz"),
    [
        (1.0, 0.3, 0.0753, 0.1113),
        (2.2, 0.3, 0.0452, 0.0684),
        (9.0, 0.3, 0.0211, 0.0416),
        (200.0, 0.3, 0.0110, 0.0318),
        (1.0, 2.0, 0.1557, 0.67),
        (200.0, -2.0, 0.0137, 0.085),
        (0.15, 0.3, 0.3543, None),
    ],
)
def test_impact_parameter_resolution_of_the_table(pt: float, eta: float, d0: float, dz: float | None) -> None:
    at = np.array([pt]), np.array([eta])
    assert tracking.impact_parameter_resolution("D0", *at)[0] == pytest.approx(d0, rel=0.02)
    if dz is not None:
        assert tracking.impact_parameter_resolution("DZ", *at)[0] == pytest.approx(dz, rel=0.02)


def test_measured_impact_parameters_scatter_by_their_errors() -> None:
    found = seen(gun(211, 1, 9.0, 0.3))
    charged = found.select(found.charge != 0)
    assert (charged.d0 / charged.d0_error).std() == pytest.approx(1, abs=0.02)
    assert (charged.dz / charged.dz_error).std() == pytest.approx(1, abs=0.02)
    neutral = found.select(found.charge == 0)
    assert not neutral.d0.any()
    assert not neutral.dz_error.any()


@given(
    x=st.floats(-200, 200), y=st.floats(-200, 200), phi=st.floats(-3.1, 3.1), charge=st.sampled_from([-1, 1])
)
def test_impact_parameter_of_a_stiff_track_is_that_of_a_line(
    x: float, y: float, phi: float, charge: int
) -> None:
    pt = 1e5
    one = np.ones(1)
    particle = Particles(
        np.zeros(1, int), 211 * np.ones(1, int), charge * one, pt * np.cos(phi) * one, pt * np.sin(phi) * one,
        2 * pt * one, 3 * pt * one, x * one, y * one, 5 * one,
    )  # fmt: skip
    flight = propagation.propagate(particle)
    assert flight.d0[0] == pytest.approx(x * np.sin(phi) - y * np.cos(phi), abs=2e-3)
    assert flight.dz[0] == pytest.approx(5 - 2 * (x * np.cos(phi) + y * np.sin(phi)), abs=2e-3)


@pytest.mark.parametrize(("pt", "charge"), [(0.9, 1.0), (0.9, -1.0), (5.0, 1.0), (0.3, 1.0)])
def test_the_helix_agrees_with_stepping_through_the_field(pt: float, charge: float) -> None:
    particle = gun(211, charge, pt, 0.7, count=1, x=12.0, y=-30.0, z=50.0)
    flight = propagation.propagate(particle)
    # Lorentz force: the transverse direction turns by -q 0.3 B / pT per length.
    position = np.array([12.0, -30.0, 50.0])
    angle, step = np.arctan2(particle.py[0], particle.px[0]), 0.05
    turn = -charge * 0.299792458e-3 * 3.8 / pt * step
    while np.hypot(*position[:2]) < 1290 and abs(position[2]) < 3000:
        position += step * np.array([np.cos(angle + turn / 2), np.sin(angle + turn / 2), np.sinh(0.7)])
        angle += turn
    assert flight.phi[0] == pytest.approx(np.arctan2(position[1], position[0]), abs=2e-3)
    assert flight.eta[0] == pytest.approx(np.arcsinh(position[2] / np.hypot(*position[:2])), abs=2e-3)


@pytest.mark.parametrize(
    ("pdg", "species", "energy", "eta", "sigma"),
    [
        (22, PHOTON, 50.0, 0.3, (1 + 0.64 * 0.09) * np.sqrt((0.008 * 50) ** 2 + 0.11**2 * 50 + 0.4**2)),
        (22, PHOTON, 50.0, 2.0, 2.16 * np.sqrt((0.008 * 50) ** 2 + 0.11**2 * 50 + 0.4**2)),
        (130, NEUTRAL_HADRON, 100.0, 0.3, np.sqrt((0.05 * 100) ** 2 + 1.5**2 * 100)),
    ],
)
def test_calorimeter_resolution(pdg: int, species: int, energy: float, eta: float, sigma: float) -> None:
    found = seen(gun(pdg, 0, energy / np.cosh(eta), eta))
    assert set(found.species) == {species}
    assert found.energy.mean() == pytest.approx(energy, abs=5 * sigma / np.sqrt(N))
    assert found.energy.std() == pytest.approx(sigma, rel=0.03)


def test_soft_neutrals_below_threshold_vanish() -> None:
    assert len(seen(gun(22, 0, 0.3, 0.1))) < 0.25 * N  # 0.3 GeV must fluctuate above 0.5 and 2 sigma
    assert len(seen(gun(22, 0, 20.0, 0.1))) == N
    assert len(seen(gun(130, 0, 0.05, 0.1))) < 0.05 * N


def test_directions_of_neutrals_stay_within_a_cell() -> None:
    particles = gun(22, 0, 50.0, 0.4)
    found = seen(particles)
    d_eta = np.arcsinh(found.pz / np.hypot(found.px, found.py)) - 0.4
    d_phi = np.arctan2(
        found.py * particles.px - found.px * particles.py, found.px * particles.px + found.py * particles.py
    )
    assert np.abs(d_eta).max() < 0.0174
    assert np.abs(d_phi).max() < np.pi / 180
    assert d_phi.std() == pytest.approx(np.pi / 180 / np.sqrt(6), rel=0.05)


def test_an_isolated_charged_hadron_is_counted_once() -> None:
    """Its track and its HCAL cell are one particle: the mean energy stays, and few cells add a neutral."""
    found = seen(gun(211, 1, 20.0, 0.3))
    tracked = np.isin(np.arange(N), found.event[found.charge != 0])
    neutral = np.bincount(found.event[found.charge == 0], minlength=N).astype(bool)
    assert neutral[tracked].mean() < 0.25
    assert neutral[~tracked].mean() > 0.9  # without a track the HCAL sees a neutral hadron
    total = np.bincount(found.event, found.energy, N)[tracked].mean()
    # A cell that fluctuates up by more than 1 sigma adds a neutral (the card's significance): a bias of +7 %.
    assert total == pytest.approx(1.07 * 20 * np.cosh(0.3), rel=0.03)


def test_muons_leave_nothing_in_the_calorimeters() -> None:
    found = seen(gun(13, -1, 50.0, 0.3))
    assert set(found.species) == {MUON}


def test_an_electron_is_an_electron_and_leaves_its_energy_in_the_ecal_once() -> None:
    found = seen(gun(11, -1, 50.0, 0.3))
    assert set(found.species) == {ELECTRON, PHOTON}
    assert (found.species == PHOTON).mean() < 0.25


def test_particles_born_outside_the_tracker_are_lost() -> None:
    assert len(seen(gun(22, 0, 50.0, 0.0, count=10, x=1300.0))) == 0
    assert len(seen(gun(22, 0, 50.0, 0.0, count=10, z=-3100.0))) == 0


def test_cells_add_up_within_an_event_and_not_across_events() -> None:
    deposits = Deposits(
        np.array([0, 0, 1]), np.array([0.01, 0.02, 0.01]), np.full(3, 0.03), np.array([40.0, 60.0, 30.0])
    )
    none = TrackEnergies(*(np.zeros(0, int), *np.zeros((4, 0))))
    found, _ = measure(HCAL, deposits, none, 0.0, np.random.default_rng(1))
    assert found.event.tolist() == [0, 1]
    assert found.energy == pytest.approx([100.0, 30.0])


@given(eta=st.floats(-4.99, 4.99), phi=st.floats(-np.pi, np.pi))
def test_a_deposit_comes_out_in_its_own_cell(eta: float, phi: float) -> None:
    none = TrackEnergies(*(np.zeros(0, int), *np.zeros((4, 0))))
    for calorimeter, cell in ((ECAL, 0.0175), (HCAL, 0.0873)):
        deposit = Deposits(np.array([5]), np.array([eta]), np.array([phi]), np.array([1000.0]))
        found, _ = measure(calorimeter, deposit, none, 0.0, np.random.default_rng(1))
        assert found.event.tolist() == [5]
        if abs(eta) < 1.6:
            assert abs(found.eta[0] - eta) <= cell
            assert abs(np.angle(np.exp(1j * (found.phi[0] - phi)))) <= cell


def test_scaled_detectors_see_the_same_deposits() -> None:
    particles = gun(22, 0, 50.0, 0.3, count=1000)
    nominal, wide = seen(particles), seen(particles, ecal_energy=1.5)
    assert len(nominal) == len(wide)
    pulls = [np.log(found.energy / particles.energy) for found in (nominal, wide)]
    assert np.corrcoef(*pulls)[0, 1] > 0.999
    assert pulls[1].std() / pulls[0].std() == pytest.approx(1.5, rel=0.02)


def test_species_codes_are_distinct() -> None:
    assert len({HADRON, NEUTRAL_HADRON, PHOTON, ELECTRON, MUON}) == 5
    assert {field.name for field in dataclasses.fields(Candidates)} >= {"d0", "dz", "species"}
