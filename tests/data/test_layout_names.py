"""How stored names are written in expressions, numbered families, and units."""

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettagger.data.columns import Columns
from jettagger.data.layout import Layout, described
from jettagger.data.names import names_of, written
from jettagger.data.schema import DataConfig
from jettagger.data.units import is_energy
from jettagger.errors import JettaggerError
from jettagger.expressions import parse


def config(data=None, **more) -> DataConfig:
    document = {
        "data": {"train": {"A": "a.root"}, **(data or {})},
        "classes": {"A": {"sample": "A"}, "B": "pt < 0"},
        "inputs": {"jet": {"features": {"pt": "pt"}}},
    }
    return DataConfig.model_validate(document | more)


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("part_px", "part_px"),
        ("Jet.PT", "Jet.PT"),
        ("Jet/Jet.PT", "Jet.PT"),
        ("Jet/Jet.Tau[5]", "Jet.Tau"),
        ("Jet.Edges[4]", "Jet.Edges"),
        ("x[2][3]", "x"),
        ("Event./Event.Weight", "Event.Weight"),
        ("branch/leaf", "branch.leaf"),
        ("AnalysisJetsAuxDyn:pt", "AnalysisJetsAuxDyn.pt"),
        ("AntiKt4TruthJetsAux:.pt", "AntiKt4TruthJetsAux.pt"),
        ("AnalysisJetsAuxDyn:GhostTrack.m_persIndex", "AnalysisJetsAuxDyn.GhostTrack.m_persIndex"),
        ("jet-pt (GeV)", "jet_pt__GeV_"),
        ("2p1", "_2p1"),
        ("jet.in", "jet.in_"),
        ("Δη", "__"),
    ],
)
def test_how_names_are_written(stored, name):
    assert written(stored) == name
    assert written(name) == name


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=0x2FF), min_size=1, max_size=12))
def test_every_name_becomes_one_that_stays(stored):
    name = written(stored)
    assert written(name) == name
    if not any(part.startswith("__") for part in name.split(".")) and name not in ("pi", "nan", "inf"):
        tree = parse(name)
        assert tree.names == {name} or name in ("True", "False", "None")


def test_names_that_are_written_alike_are_an_error_where_they_are_used():
    layout = Layout(config())
    stored = ("jet:pt", "jet/pt", "pt")
    assert layout.names(stored) == ("jet.pt", "pt")
    assert layout.stored(["pt"], stored, where="a.root") == {"pt"}
    with pytest.raises(
        JettaggerError, match=r"a\.root: 'jet\.pt' could mean 'jet:pt' and 'jet/pt', which are written alike"
    ):
        layout.stored(["jet.pt"], stored, where="a.root")


def test_unknown_names_are_answered_with_those_that_can_be_written():
    columns = Columns(config(inputs={"jet": {"features": {"pt": "Jets.pT"}}}))
    with pytest.raises(
        JettaggerError, match=r"unknown branch or definition 'Jets.pT': did you mean 'Jets.pt'"
    ):
        columns.input_branches(["Jets:pt", "Jets:eta"], where="a.root")


def test_numbered_branches_are_one_with_slots():
    names = names_of(("E_0", "E_1", "E_2", "x_0", "x_2", "y_0", "z_00", "z_01", "w_0", "w_1", "w"))
    assert names.families == {"E": ("E_0", "E_1", "E_2")}, "gaps, single ones and taken names are no family"
    layout = Layout(config())
    assert layout.stored(["E"], names.stored, where="a") == {"E_0", "E_1", "E_2"}
    branches = {f"E_{k}": np.array([10.0 + k, 20.0 + k], np.float32) for k in range(3)}
    jets = layout.jets(branches, where="a")
    assert jets.branches["E"].to_awkward().tolist() == [[10, 11, 12], [20, 21, 22]]
    assert jets.branches["E"].values.dtype == np.float32
    assert jets.branches["E_1"] is branches["E_1"]


def test_many_numbered_branches_are_put_side_by_side_in_blocks():
    columns = np.random.default_rng(0).random((10_000, 7))
    jets = Layout(config()).jets({f"E_{k}": columns[:, k] for k in range(7)}, where="a")
    assert np.array_equal(jets.branches["E"].values.reshape(-1, 7), columns)


def test_numbered_lists_are_no_slots():
    branches = {"E_0": np.zeros(2), "E_1": ak.Array([[1.0], []])}
    with pytest.raises(JettaggerError, match=r"a: 'E' stands for E_0 … E_1 together, and 'E_1' has a list"):
        _ = Layout(config()).jets(branches, where="a").branches["E"]


def test_flat_files_pass_through():
    branches = {"part_px": ak.Array([[1.0], []]), "jet_pt": np.array([1.0, 2.0])}
    jets = Layout(config()).jets(branches, where="a")
    assert jets.branches is branches
    assert (jets.entry_J.tolist(), jets.index_J.tolist(), jets.counts_E) == ([0, 1], [0, 0], None)
    assert Layout(config()).stored(["jet_pt"], branches, where="a") == {"jet_pt"}


def test_names_of_many_branches_are_worked_out_once():
    stored = tuple(f"Branch{k % 300}_variable_{k}" for k in range(1500))
    layout = Layout(config())
    layout.names(stored)
    before = names_of.cache_info().misses
    for _ in range(10):
        layout.stored(["Branch0_variable_0"], list(stored), where="a")
    assert names_of.cache_info().misses == before, "names are worked out once a file, not once a chunk"


# ---------------------------------------------------------------- units


@pytest.mark.parametrize(
    "name",
    [
        *("pt", "jet_pt", "jet_E", "Jets.pt", "Jets.m", "Jets.JetConstitScaleMomentum_pt", "px_3", "e"),
        *(
            "Jets.pt_btagJes",
            "HadronConeExclTruthLabelPt",
            "jet_mass",
            "MET_sumEt",
            "ht",
            "el_energy",
            "p_T.mt",
        ),
    ],
)
def test_names_of_energies(name):
    assert is_energy(name)


@pytest.mark.parametrize(
    "name",
    [
        *("eta", "jet_phi", "NumTrkPt1000", "GhostTrack.m_persIndex", "ptrel", "jet_nparticles", "n_m_0x"),
        *("width", "tau1", "e_id", "weight", "event", "p_value", "TrackWidthPt1000"),
    ],
)
def test_names_of_other_things(name):
    assert not is_energy(name)


def test_mev_becomes_gev():
    layout = Layout(config({"units": "MeV"}))
    branches = {
        "jet:pt": np.array([1500.0, 2000.0], np.float32),
        "track_pt": ak.Array([[500.0], []]),
        "n_e": np.array([3, 4], np.int32),
        "jet_eta": np.array([1.0, 2.0]),
        "E_0": np.array([1000.0, 2000.0]),
        "E_1": np.array([3000.0, 4000.0]),
    }
    jets = layout.jets(branches, where="a")
    assert jets.branches["jet.pt"].tolist() == [1.5, 2.0]
    assert jets.branches["jet.pt"].dtype == np.float32
    assert jets.branches["track_pt"].tolist() == [[0.5], []]
    assert (jets.branches["n_e"].tolist(), jets.branches["n_e"].dtype) == ([0.003, 0.004], np.float64)
    assert jets.branches["jet_eta"] is branches["jet_eta"]
    assert jets.branches["E"].to_awkward().tolist() == [[1, 3], [2, 4]]
    assert layout.converted(branches) == dict.fromkeys(
        ("jet.pt", "track_pt", "n_e", "E_0", "E_1"), "MeV → GeV"
    )
    assert described(jets.counts) == ["converted from MeV → GeV: jet.pt, track_pt, n_e, E_0, E_1"]
    assert layout.jets({"x": np.zeros(1)}, where="a").counts == {}


def test_units_by_glob():
    layout = Layout(config({"units": {"*_d0": "um", "*_z": "cm", "len": "m", "E": "TeV", "*_pt": "GeV"}}))
    branches = {
        "a_d0": np.array([10.0]),
        "a_z": np.array([2], np.int16),
        "len": np.array([0.5], np.float32),
        "E_0": np.array([1.0]),
        "E_1": np.array([2.0]),
        "a_pt": np.array([7.0]),
    }
    found = layout.jets(branches, where="a").branches
    assert [found[name].tolist() for name in branches] == [[0.01], [20.0], [500.0], [1000.0], [2000.0], [7.0]]
    assert found["a_z"].dtype == np.float64
    assert layout.stored(["a_d0"], branches, where="a") == {"a_d0"}
    assert layout.converted(branches)["a_d0"] == "um → mm"
    with pytest.raises(
        JettaggerError, match=r"a: data\.units: no branch matches '\*_d0': did you mean 'd0'\?"
    ):
        layout.stored(["d0"], ["d0"], where="a")
    layout = Layout(config({"units": {"*_pt": "MeV", "a_*": "cm"}}))
    with pytest.raises(JettaggerError, match=r"data\.units: '\*_pt' says MeV and 'a_\*' says cm of 'a_pt'"):
        layout.jets({"a_pt": np.zeros(1)}, where="a")


def test_units_of_a_family_are_those_of_a_member_that_is_used_alone():
    layout = Layout(config({"units": {"E": "MeV"}}))
    stored = layout.stored(["E_1"], ["E_0", "E_1", "E_2", "pt"], where="a")
    branches = {name: np.array([1000.0]) for name in stored}
    assert layout.jets(branches, where="a").branches["E_1"].tolist() == [1.0]
    assert "pt" not in stored


def test_units_reach_selection_inputs_and_counts():
    settings = config(
        {"units": "MeV", "selection": "jet_pt > 500"},
        classes={"A": "jet_pt > 600", "B": "jet_pt <= 600"},
        inputs={"jet": {"features": {"pt": "jet_pt"}}},
    )
    branches = {"jet_pt": np.array([400e3, 550e3, 700e3], np.float32)}
    table = Columns(settings).table(branches, start=0, sample="A", sample_weight=1.0, where="a")
    assert table.inputs.jet_JF.tolist() == [[550.0], [700.0]]
    assert table.labels_J.tolist() == [1, 0]
    assert table.counts["MeV jet_pt"] == 3
