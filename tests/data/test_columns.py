"""From branches to columns, against loops over jets."""

import awkward as ak
import numpy as np
import pytest
import yaml

from jettagger.data.columns import BLOCK, Columns
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError
from toy_jets import CONFIG, toy_jets

PARTS = ("data", "classes", "inputs", "define", "spectators")


def config(**changes) -> DataConfig:
    """The toy config with dotted keys replaced: `inputs__particles__select=...`."""
    document = {k: v for k, v in yaml.safe_load(CONFIG.format(folder="x")).items() if k in PARTS}
    for key, value in changes.items():
        *path, last = key.split("__")
        section = document
        for part in path:
            section = section[part]
        section[last] = value
    return DataConfig.model_validate(document)


def table(settings: DataConfig, branches, **more):
    arguments = {"start": 0, "sample": "QCD", "sample_weight": 1.0, "where": "toy.root"} | more
    return Columns(settings, more.pop("extras", None)).table(branches, **arguments)


def test_selection_and_inputs_against_a_loop():
    branches = toy_jets("Top", 120, 3)
    found = table(config(), branches, start=1000)
    kept = [i for i in range(120) if branches["jet_pt"][i] > 500 and abs(branches["jet_eta"][i]) < 2]
    assert found.entry_J.tolist() == [1000 + i for i in kept]
    assert set(found.labels_J) == {1}
    assert np.allclose(found.inputs.jet_JF[:, 1], branches["jet_sdmass"][kept])
    particles = found.inputs.collections["particles"]
    row = 0
    for jet, i in enumerate(kept):
        pt = np.hypot(ak.to_numpy(branches["part_px"][i]), ak.to_numpy(branches["part_py"][i]))
        order = np.argsort(-pt, kind="stable")[:16]
        assert particles.lengths_J[jet] == len(order)
        rows = slice(row, row + len(order))
        assert np.allclose(particles.values_NF[rows, 0], np.log(pt[order]), atol=1e-6)
        assert np.allclose(particles.values_NF[rows, 2], ak.to_numpy(branches["part_charge"][i])[order])
        assert np.allclose(particles.coordinates_NK[rows, 2], pt[order])
        row += len(order)
    assert row == len(particles.values_NF)
    assert found.counts["truncated particles"] == sum(len(branches["part_px"][i]) > 16 for i in kept)
    assert found.counts["empty particles"] == sum(len(branches["part_px"][i]) == 0 for i in kept)
    assert found.counts["missing jet.leading"] == found.counts["empty particles"] > 0


def test_reductions_see_all_particles_and_inputs_the_selected():
    branches = toy_jets("QCD", 50, 1)
    found = table(config(inputs__particles__select="part_charge != 0", data__selection=None), branches)
    charged = ak.to_numpy(ak.sum(branches["part_charge"] != 0, axis=1))
    assert np.array_equal(found.inputs.collections["particles"].lengths_J, np.minimum(charged, 16))
    leading = ak.to_numpy(
        ak.fill_none(ak.max(np.hypot(branches["part_px"], branches["part_py"]), axis=1), np.nan)
    )
    assert np.allclose(found.inputs.jet_JF[:, 3], leading, equal_nan=True)


def test_result_does_not_depend_on_how_files_are_cut():
    branches = toy_jets("QCD", 100, 1)
    whole = table(config(), branches)
    parts = [
        table(config(), {k: v[a:b] for k, v in branches.items()}, start=a) for a, b in ((0, 37), (37, 100))
    ]
    assert np.array_equal(whole.group_J, np.concatenate([p.group_J for p in parts]))
    assert np.array_equal(
        whole.inputs.jet_JF, np.concatenate([p.inputs.jet_JF for p in parts]), equal_nan=True
    )
    values = [p.inputs.collections["particles"].values_NF for p in parts]
    assert np.array_equal(whole.inputs.collections["particles"].values_NF, np.concatenate(values))


def test_sentinels_and_infinities_are_counted():
    branches = toy_jets("QCD", 40, 1)
    branches["jet_sdmass"][[3, 4]] = -999
    branches["jet_sdmass"][5] = np.inf
    mass = {"value": "jet_sdmass", "sentinels": [-999]}
    found = table(config(inputs__jet__features__mass=mass, data__selection=None), branches)
    assert found.counts["missing jet.mass"] == 3
    assert np.isnan(found.inputs.jet_JF[[3, 4], 1]).all()


def test_jets_in_no_class_or_two_are_refused():
    branches = toy_jets("QCD", 40, 1)
    branches["label_QCD"][7] = False
    with pytest.raises(
        JettaggerError,
        match=r"toy\.root: 1 of 40 selected jets do not belong to exactly one class: the jet of entry 7 is in no class",
    ):
        table(config(data__selection=None), branches)
    branches = toy_jets("QCD", 40, 1)
    branches["label_Tbqq"][9] = True
    with pytest.raises(JettaggerError, match=r"entry 9 is in 2 classes \(QCD, Top\)"):
        table(config(data__selection=None), branches)


def test_class_of_a_sample():
    settings = config(classes={"QCD": {"sample": "QCD"}, "Top": {"sample": "Top"}})
    assert set(table(settings, toy_jets("QCD", 40, 1), sample="Top").labels_J) == {1}


def test_weights_multiply():
    settings = config(data__selection=None).model_copy(update={"weights": None})
    settings = DataConfig.model_validate(
        {**config(data__selection=None).model_dump(by_alias=True), "weights": {"event": "gen_weight"}}
    )
    branches = toy_jets("QCD", 40, 1)
    found = table(settings, branches, sample_weight="2 * jet_pt")
    assert np.allclose(found.weights_J, branches["gen_weight"] * 2 * branches["jet_pt"])
    branches["gen_weight"][11] = np.nan
    with pytest.raises(JettaggerError, match=r"toy\.root: weights\.event is not finite for entry 11"):
        table(settings, branches)


def test_groups_without_event_number_are_blocks_of_neighbours():
    branches = toy_jets("QCD", 2 * BLOCK + 5, 1)
    del branches["event_number"]
    found = table(config(data__selection=None), branches, file_key=7000)
    assert np.array_equal(found.group_J, 7000 + np.arange(2 * BLOCK + 5) // BLOCK)
    settings = config(data__group_by="jet_pt", data__selection=None)
    with pytest.raises(JettaggerError, match=r"data\.group_by: 'jet_pt' holds float32, not whole numbers"):
        table(settings, branches)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inputs__jet__features__mass": "part_px"},
            r"inputs\.jet\.features\.mass: one value a jet is expected",
        ),
        ({"classes__QCD": "label_QCD"}, None),
        (
            {"classes__QCD": "jet_pt"},
            r"classes\.QCD: a condition is expected, 'jet_pt' has values of type float32",
        ),
        ({"data__selection": "part_px > 1"}, r"data\.selection: one value a jet is expected"),
        ({"inputs__particles__select": "part_px"}, r"inputs\.particles\.select: a condition is expected"),
        (
            {"inputs__particles__features": {"x": "jet_pt"}},
            r"inputs\.particles: no feature has one value a particle",
        ),
        (
            {"inputs__particles__coordinates__eta": "log(part_charge)"},
            r"inputs\.particles\.coordinates\.eta: \d+ values are not finite",
        ),
    ],
)
def test_expressions_of_the_wrong_kind(changes, message):
    branches = toy_jets("QCD", 40, 1)
    if message is None:
        table(config(**changes), branches)
        return
    with pytest.raises(JettaggerError, match=message):
        table(config(**changes), branches)


def test_collections_of_different_sizes_do_not_mix():
    branches = toy_jets("QCD", 40, 1)
    branches["sv_mass"] = ak.unflatten(np.ones(40, np.float32), np.ones(40, int))
    settings = config(inputs__particles__features__sv="sv_mass")
    with pytest.raises(JettaggerError, match=r"features\.sv: it has another number of particles"):
        table(settings, branches)


def test_collection_needs_its_branches():
    settings = config(inputs__particles__from="pfcand_*")
    with pytest.raises(JettaggerError, match=r"inputs\.particles\.from: no branch matches 'pfcand_\*'"):
        Columns(settings).input_branches(toy_jets("QCD", 3, 1).keys(), where="toy.root")


def test_sentinels_that_are_no_float32():
    branches = toy_jets("QCD", 40, 1)
    branches["jet_sdmass"][[3, 4]] = -999.9
    mass = {"value": "jet_sdmass", "sentinels": [-999.9]}
    found = table(config(inputs__jet__features__mass=mass, data__selection=None), branches)
    assert found.counts["missing jet.mass"] == 2


def test_values_beyond_float32():
    branches = toy_jets("QCD", 40, 1)
    branches["jet_sdmass"] = np.where(np.arange(40) == 3, 1e300, 80.0)
    found = table(config(data__selection=None), branches)
    assert found.counts["missing jet.mass"] == 1
    branches["part_deta"] = ak.values_astype(branches["part_deta"], np.float64) * 1e300
    with pytest.raises(
        JettaggerError, match=r"inputs\.particles\.coordinates\.eta: \d+ values are not finite"
    ):
        table(config(data__selection=None), branches)


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        ("part_charge", r"data\.group_by: 'part_charge' has one value a particle, not one a jet"),
        ("jet_pt", r"data\.group_by: 'jet_pt' holds float32, not whole numbers"),
        ("1", r"data\.group_by: unknown branch '1'"),
        ("event_numer", r"unknown branch 'event_numer': did you mean 'event_number'\?"),
    ],
)
def test_groups_are_whole_numbers_of_jets(branch, message):
    with pytest.raises(JettaggerError, match=message):
        table(config(data__group_by=branch), toy_jets("QCD", 40, 1))
