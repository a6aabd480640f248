"""The physics of the written samples, by value. Bounds are 4 standard errors of 120 jets or more."""

from collections.abc import Callable
from typing import Any

import awkward as ak
import numpy as np
import pytest

from jettagger.kinematics import delta_phi

Jets = Callable[[str], Any]
PARTICLE_CLASSES = ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")


@pytest.mark.parametrize(
    ("process", "low", "high"),
    [("Wqq", 74, 86), ("Zqq", 84, 97), ("Hbb", 108, 127), ("Tbqq", 163, 182), ("QCD", 10, 60)],
)
def test_soft_drop_mass_peaks_at_the_resonance(jets: Jets, process: str, low: float, high: float) -> None:
    assert low < np.median(jets(process).jet_sdmass) < high


def test_generated_mass_peaks_at_the_top(jets: Jets) -> None:
    assert 170 < np.median(jets("Tbqq").gen_jet_mass) < 190  # ungroomed: the underlying event adds to 173


@pytest.mark.parametrize(("process", "low", "high"), [("QCD", 0.52, 0.63), ("Tbqq", 0.53, 0.64)])
def test_charged_particles_carry_their_share(jets: Jets, process: str, low: float, high: float) -> None:
    sample = jets(process)
    pt = np.hypot(sample.part_px, sample.part_py)
    fraction = ak.sum(pt * (sample.part_charge != 0), axis=1) / ak.sum(pt, axis=1)
    assert low < float(ak.mean(fraction)) < high


def test_top_jets_have_more_particles_and_prongs_than_qcd_jets(jets: Jets) -> None:
    qcd, top = jets("QCD"), jets("Tbqq")
    assert 38 < ak.mean(qcd.jet_nparticles) < 58
    assert ak.mean(top.jet_nparticles) > 1.1 * ak.mean(qcd.jet_nparticles)
    assert np.median(top.jet_tau3 / top.jet_tau2) < np.median(qcd.jet_tau3 / qcd.jet_tau2) - 0.15
    assert (
        np.median(jets("Wqq").jet_tau2 / jets("Wqq").jet_tau1) < np.median(qcd.jet_tau2 / qcd.jet_tau1) - 0.15
    )


def test_b_jets_have_displaced_tracks(jets: Jets) -> None:
    def displaced(sample: Any) -> float:
        """Mean number of tracks between 3 sigma and 3 mm (K0S and Lambda fly further)."""
        d0 = np.abs(sample.part_d0val)
        charged = sample.part_charge != 0
        significance = d0[charged] / sample.part_d0err[charged]
        return float(ak.mean(ak.sum((significance > 3) & (d0[charged] < 3), axis=1)))

    assert displaced(jets("Hbb")) > 2 * displaced(jets("Wqq"))
    assert displaced(jets("Tbqq")) > 1.5 * displaced(jets("QCD"))


def test_the_detector_measures_the_generated_jet(jets: Jets) -> None:
    response = np.asarray(jets("QCD").jet_pt / jets("QCD").gen_jet_pt)
    assert np.median(response) == pytest.approx(1, abs=0.03)
    assert 0.03 < response.std() < 0.12


@pytest.mark.parametrize("process", ["QCD", "Tbqq"])
def test_cuts_order_units_and_signs(jets: Jets, process: str) -> None:
    sample = jets(process)
    assert ak.min(sample.jet_pt) >= 500
    assert ak.max(sample.jet_pt) <= 1000
    assert ak.max(np.abs(sample.jet_eta)) <= 2
    pt = np.hypot(sample.part_px, sample.part_py)
    assert ak.all(pt[:, :-1] >= pt[:, 1:])
    assert ak.all(sample.jet_nparticles == ak.num(sample.part_px))
    for component in ("part_px", "part_py", "part_pz", "part_energy"):
        total = ak.sum(sample[component], axis=1)
        jet = {
            "part_px": sample.jet_pt * np.cos(sample.jet_phi),
            "part_py": sample.jet_pt * np.sin(sample.jet_phi),
            "part_pz": sample.jet_pt * np.sinh(sample.jet_eta),
            "part_energy": sample.jet_energy,
        }[component]
        assert np.allclose(total, jet, rtol=1e-4, atol=0.05)
    eta = np.arcsinh(sample.part_pz / pt)
    sign = np.where(sample.jet_eta > 0, 1, -1)
    assert np.allclose(ak.flatten(sample.part_deta), ak.flatten(sign * (eta - sample.jet_eta)), atol=1e-4)
    d_phi = delta_phi(np.arctan2(sample.part_py, sample.part_px), sample.jet_phi)
    assert np.allclose(ak.flatten(sample.part_dphi), ak.flatten(d_phi), atol=1e-4)


@pytest.mark.parametrize("process", ["QCD", "Tbqq"])
def test_particles_are_of_one_class_and_only_tracks_have_impact_parameters(jets: Jets, process: str) -> None:
    sample = jets(process)
    classes = sum(sample[f"part_is{name}"] for name in PARTICLE_CLASSES)
    assert ak.all(classes == 1)
    neutral = sample.part_isNeutralHadron + sample.part_isPhoton == 1
    assert ak.all(neutral == (sample.part_charge == 0))
    for branch in ("part_d0val", "part_d0err", "part_dzval", "part_dzerr"):
        assert not ak.any(sample[branch][neutral])
    assert ak.all(sample.part_d0err[~neutral] > 0.005)  # mm
    assert ak.all(sample.part_d0err[~neutral] < 1)


def test_labels_are_one_hot(jets: Jets) -> None:
    for process in ("QCD", "Tbqq", "Wqq", "Zqq", "Hbb"):
        sample = jets(process)
        labels = [name for name in sample.fields if name.startswith("label_")]
        assert len(labels) == 10
        assert ak.all(sample[f"label_{process}"] == 1)
        assert ak.all(sum(ak.values_astype(sample[name], int) for name in labels) == 1)


def test_jets_of_one_event_share_its_number_and_samples_do_not(jets: Jets) -> None:
    numbers = {process: np.asarray(jets(process).event_number) for process in ("QCD", "Tbqq")}
    for events in numbers.values():
        _, counts = np.unique(events, return_counts=True)
        assert counts.max() == 2
        assert (np.diff(events) >= 0).all()
        assert events.min() > 0
    assert not set(numbers["QCD"]) & set(numbers["Tbqq"])
    top = jets("Tbqq")
    same = np.flatnonzero(np.diff(numbers["Tbqq"]) == 0)
    back_to_back = np.abs(delta_phi(top.jet_phi[same], top.jet_phi[same + 1]))
    assert np.median(back_to_back) > 2.5
