"""Jets nested in events, and the particles that are linked to them, against loops."""

import re
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jettagger.data.columns import Columns
from jettagger.data.layout import Layout, described
from jettagger.data.reader import source_of
from jettagger.data.schema import DataConfig
from jettagger.data.units import FIRST_WORDS, LAST_WORDS
from jettagger.errors import JettaggerError
from jettagger.expressions import Jagged

PF = {"from": "PF_*", "features": {"pt": "PF_pt"}}
CROSS = {"jet": "JetPF_jetIdx", "particle": "JetPF_pfIdx"}


def config(data=None, **more) -> DataConfig:
    document = {
        "data": {"train": {"A": "a.root"}, "jets": "Jet_*", **(data or {})},
        "classes": {"A": {"sample": "A"}, "B": "1 < 0"},
        "inputs": {"jet": {"features": {"pt": "Jet_pt"}}},
    }
    return DataConfig.model_validate(document | more)


def linked(index, **more) -> DataConfig:
    return config(inputs={"pf": {**PF, **more, "index": index}})


def lists(values, dtype=np.float32):
    return ak.values_astype(ak.Array([*values, [1]])[:-1], dtype)


def nested(values, dtype=np.int32):
    return ak.values_astype(ak.Array([*values, [[1]]])[:-1], dtype)


def plain(value):
    return value.to_awkward().tolist() if isinstance(value, Jagged) else value.tolist()


def branch(settings, name, branches, **more):
    return plain(Layout(settings).jets(branches, where="a.root", **more).branches[name])


EVENTS = {
    "Jet_pt": lists([[30, 20], [], [50]]),
    "Jet_tau": ak.Array([[[1, 2], [3, 4]], [], [[5, 6]]]),
    "Jet_d_0": lists([[0, 1], [], [2]]),
    "Jet_d_1": lists([[3, 4], [], [5]]),
    "MET_pt": np.array([7.0, 8.0, 9.0]),
    "w_0": np.array([1.0, 2.0, 3.0]),
    "w_1": np.array([4.0, 5.0, 6.0]),
    "SV_mass": lists([[1.5], [2.5, 3.5], []]),
    "PF_pt": lists([[10, 11, 12], [13], [14, 15]]),
    "PF_jet": lists([[1, -1, 0], [-1], [0, 0]], np.int16),
    "JetPF_jetIdx": lists([[1, 0, 0, -1], [], [0]], np.int32),
    "JetPF_pfIdx": lists([[0, 2, 0, 1], [], [1]], np.int32),
    "JetPF_rel": lists([[0.1, 0.2, 0.3, 0.4], [], [0.5]], np.float64),
}


def test_jets_are_flattened_and_events_repeated():
    jets = Layout(config()).jets(EVENTS, where="a.root")
    assert len(jets) == 3
    assert jets.entry_J.tolist() == [0, 0, 2]
    assert jets.index_J.tolist() == [0, 1, 0]
    assert jets.counts_E.tolist() == [2, 0, 1]
    expected = {
        "Jet_pt": [30, 20, 50],
        "Jet_tau": [[1, 2], [3, 4], [5, 6]],
        "Jet_d": [[0, 3], [1, 4], [2, 5]],
        "MET_pt": [7, 7, 9],
        "w": [[1, 4], [1, 4], [3, 6]],
        "SV_mass": [[1.5], [1.5], []],
    }
    for name, values in expected.items():
        assert plain(jets.branches[name]) == values, name
    assert jets.branches["Jet_pt"].dtype == np.float32


@pytest.mark.parametrize(
    ("index", "pt", "rel"),
    [
        (CROSS, [[12, 10], [10], [15]], [[0.2, 0.3], [0.1], [0.5]]),
        ({"jet": "PF_jet"}, [[12], [10], [14, 15]], None),
    ],
)
def test_particles_are_linked_to_their_jets(index, pt, rel):
    jets = Layout(linked(index)).jets(EVENTS, where="a.root")
    assert plain(jets.branches["PF_pt"]) == pt
    if rel is not None:
        assert plain(jets.branches["JetPF_rel"]) == rel
        assert jets.branches["JetPF_rel"].offsets is jets.branches["PF_pt"].offsets
        assert jets.counts == {"unlinked pf": 1}
        assert described(jets.counts) == ["pf: 1 of the links in inputs.pf.index lead nowhere"]


def test_only_what_is_needed_is_read():
    def read(settings):
        columns = Columns(settings)
        return columns.branches(EVENTS, where="a.root", sample_weight=1.0)

    assert read(config()) == {"Jet_pt"}
    assert read(linked(CROSS)) == {"Jet_pt", "PF_pt", "JetPF_jetIdx", "JetPF_pfIdx"}
    assert read(linked({"jet": "PF_jet"})) == {"Jet_pt", "PF_pt", "PF_jet"}
    assert read(config(inputs={"jet": {"features": {"x": "MET_pt"}}})) == {"MET_pt", "Jet_pt"}
    features = {"pt": "JetPF_rel"}
    assert read(linked(CROSS, features=features)) == {
        "Jet_pt",
        "PF_pt",
        "JetPF_rel",
        "JetPF_jetIdx",
        "JetPF_pfIdx",
    }


def test_inputs_of_nested_jets():
    settings = config(
        {"selection": "Jet_pt > 25"},
        inputs={
            "pf": {
                **PF,
                "index": CROSS,
                "sort_by": "-PF_pt",
                "features": {"pt": "PF_pt / Jet_pt", "rel": "JetPF_rel"},
            },
            "jet": {"features": {"met": "MET_pt", "sv": "at(SV_mass, 0, missing=0)"}},
        },
    )
    table = Columns(settings).table(
        EVENTS, start=100, sample="A", sample_weight=1.0, where="a.root", file_key=10**6
    )
    assert table.entry_J.tolist() == [100, 102]
    assert table.index_J.tolist() == [0, 0]
    assert table.group_J.tolist() == [10**6 + 100, 10**6 + 102], "jets of an event stay together"
    assert table.inputs.jet_JF.tolist() == [[7, 1.5], [9, 0]]
    particles = table.inputs.collections["pf"]
    assert particles.lengths_J.tolist() == [2, 1]
    assert np.allclose(particles.values_NF, [[0.4, 0.2], [1 / 3, 0.3], [0.3, 0.5]])
    assert table.counts["read"] == 3
    assert table.counts["unlinked pf"] == 1


def test_slots_of_nested_jets():
    branches = {
        **EVENTS,
        "Jet_n": lists([[1, 0], [], [5]], np.uint8),
    }
    settings = config({"slots": {"Jet_d": "Jet_n"}})
    assert branch(settings, "Jet_d", branches) == [[0], [], [2, 5]]


# ---------------------------------------------------------------- links as ATLAS and Delphes write them


ATLAS = {
    "Jets:pt": lists([[30e3, 20e3], [50e3]]),
    "Jets:Ghost.m_persIndex": nested([[[0, 2, 0], []], [[1]]], np.uint32),
    "Jets:Ghost.m_persKey": nested([[[0, 9, 9], []], [[9]]], np.uint32),
    "Tracks:z0": lists([[1, 2, 3], [4, 5]]),
}
GHOST = {"particle": "Jets.Ghost.m_persIndex"}


def atlas(**more) -> DataConfig:
    inputs = {"tracks": {"from": "Tracks.*", "index": GHOST, "features": {"z0": "Tracks.z0"}}}
    return config({"jets": "Jets.*", "units": "MeV"}, inputs=inputs, **more)


def test_jets_that_list_their_particles():
    columns = Columns(atlas())
    assert columns.branches(ATLAS, where="a", sample_weight=1.0) == {
        *("Jets:Ghost.m_persIndex", "Jets:Ghost.m_persKey", "Tracks:z0"),
    }
    jets = Layout(atlas()).jets(ATLAS, where="a")
    assert plain(jets.branches["Tracks.z0"]) == [[3, 1], [], [5]], "key 0 leads nowhere, index 0 does"
    assert jets.counts["unlinked tracks"] == 1
    without = {name: x for name, x in ATLAS.items() if "Key" not in name}
    assert branch(atlas(), "Tracks.z0", without) == [[1, 3, 1], [], [5]]


def test_links_into_several_collections():
    keys = nested([[[0, 9, 8], []], [[9]]], np.uint32)
    with pytest.raises(
        JettaggerError, match=r"'Jets\.Ghost\.m_persKey' has 2 keys \(8, 9\): the links lead into"
    ):
        branch(atlas(), "Tracks.z0", {**ATLAS, "Jets:Ghost.m_persKey": keys})


DELPHES = {
    "Jet/Jet.PT": lists([[30, 20], [50]]),
    "Jet/Jet.Constituents": nested([[[71, 5, 73], [72]], [[71, 70]]]),
    "PF/PF.fUniqueID": lists([[73, 71, 72], [70, 71]], np.uint32),
    "PF/PF.PT": lists([[1, 2, 3], [4, 5]]),
}
REFS = {"particle": "Jet.Constituents", "id": "PF.fUniqueID"}


def delphes(index=None) -> DataConfig:
    inputs = {"pf": {"from": "PF.*", "index": index or REFS, "features": {"pt": "PF.PT"}}}
    return config({"jets": "Jet.*"}, inputs=inputs)


def test_particles_that_are_referred_to_by_value():
    jets = Layout(delphes()).jets(DELPHES, where="a")
    assert plain(jets.branches["PF.PT"]) == [[2, 1], [3], [5, 4]]
    assert jets.counts == {"unlinked pf": 1}, "5 belongs to another array"
    assert Columns(delphes()).branches(DELPHES, where="a", sample_weight=1.0) == {
        *("Jet/Jet.Constituents", "PF/PF.fUniqueID", "PF/PF.PT"),
    }
    twice = {**DELPHES, "PF/PF.fUniqueID": lists([[73, 71, 71], [70, 71]], np.uint32)}
    with pytest.raises(
        JettaggerError, match=r"index\.id: event 0 has several particles with 'PF\.fUniqueID' = 71"
    ):
        branch(delphes(), "PF.PT", twice)


# ---------------------------------------------------------------- what does not fit


ROWS = "JetPF_jetIdx"
MISFITS = [
    (
        {"JetPF_pfIdx": lists([[0, 3, 0, 1], [], [1]], np.int32)},
        r"a\.root: inputs\.pf\.index: event 40 has 'JetPF_pfIdx' = 3, and 3 elements in 'PF_pt'",
    ),
    ({ROWS: lists([[1, 0, 0, -1], [], [1]], np.int32)}, r"event 42 has 'JetPF_jetIdx' = 1, and 1 jets"),
    (
        {"JetPF_pfIdx": lists([[0, 1], [], [1]], np.int32)},
        r"event 40 has 2 rows in 'JetPF_pfIdx' and 4 in 'JetPF_jetIdx'",
    ),
    ({ROWS: lists([[1, 0, 0, -1], [], [0]])}, r"'JetPF_jetIdx' holds float32, not whole numbers"),
    ({ROWS: np.zeros(3, int)}, r"inputs\.pf\.index: 'JetPF_jetIdx' has one number an event, not a list"),
    ({"PF_eta": lists([[1], [1], [1]])}, r"event 40 has 1 elements in 'PF_eta' and 3 in 'PF_pt'"),
    ({"PF_eta": np.zeros(3)}, r"'PF_eta' is no list of numbers an event, which links could pick from"),
    (
        {"Jet_eta": lists([[1, 2], [3], [4]])},
        r"a\.root: event 41 has 0 jets in 'Jet_pt' and 1 in 'Jet_eta', and data\.jets matches both",
    ),
    ({"Jet_eta": np.zeros(3)}, r"data\.jets matches 'Jet_eta', which has one number an event, not a list"),
    ({"SV_cov": nested([[[1]], [], []])}, r"'SV_cov' has lists in the lists of an event and is no branch"),
]


@pytest.mark.parametrize(("changes", "message"), MISFITS)
def test_what_does_not_fit_is_named(changes, message):
    def use():
        jets = Layout(linked(CROSS)).jets({**EVENTS, **changes}, where="a.root", first=40)
        return [jets.branches[name] for name in ("PF_pt", *changes)]

    with pytest.raises(JettaggerError, match=message):
        use()


def test_numbers_of_jets_that_do_not_lie_with_the_particles():
    branches = {**EVENTS, "jetnumber": lists([[0, 1], [], []], np.int32)}
    with pytest.raises(JettaggerError, match=r"event 0 has 3 rows in 'PF_pt' and 2 in 'jetnumber'"):
        branch(linked({"jet": "jetnumber"}), "PF_pt", branches)
    branches["jetnumber"] = lists([[1, -1, 0], [-1], [0, 0]], np.int32)
    assert branch(linked({"jet": "jetnumber"}), "PF_pt", branches) == [[12], [10], [14, 15]]


def test_mistakes_of_the_config():
    with pytest.raises(ValidationError, match=r"'jet', 'particle' or both are expected"):
        linked({"id": "PF_id"})
    with pytest.raises(
        ValidationError, match=r"'id' says what 'particle' refers to, and there is no 'particle'"
    ):
        linked({"jet": "PF_jet", "id": "PF_id"})
    with pytest.raises(ValidationError, match=r"without data\.jets an entry is a jet: say which"):
        config({"jets": None}, inputs={"pf": {**PF, "index": CROSS}})
    with pytest.raises(
        ValidationError, match=r"inputs\.pf links the same branches 'PF_\*' to the jets in another way"
    ):
        config(inputs={"pf": {**PF, "index": CROSS}, "other": {**PF, "index": {"jet": "PF_jet"}}})
    with pytest.raises(
        JettaggerError, match=r"a: data\.jets: no branch matches 'Jett_\*': did you mean 'Jet_"
    ):
        Layout(config({"jets": "Jett_*"})).stored(["MET_pt"], EVENTS, where="a")
    with pytest.raises(
        JettaggerError, match=r"a: inputs\.pf\.index\.jet: unknown branch 'PF_jett': did you mean 'PF_jet'"
    ):
        Layout(linked({"jet": "PF_jett"})).stored(["PF_pt"], EVENTS, where="a")
    two = config(inputs={"pf": {**PF, "index": CROSS}, "all": {**PF, "from": "PF_p*"}})
    with pytest.raises(JettaggerError, match=r"a: inputs\.pf and inputs\.all both have 'PF_pt', and link it"):
        Layout(two).stored(["PF_pt"], EVENTS, where="a")
    same = config(inputs={"pf": {**PF, "index": CROSS}, "hard": {**PF, "from": "PF_p*", "index": CROSS}})
    assert branch(same, "PF_pt", EVENTS) == [[12, 10], [10], [15]]


# ---------------------------------------------------------------- against loops


counts = st.lists(st.integers(0, 3), max_size=7)


@settings(max_examples=100, deadline=None)
@given(counts, st.randoms(use_true_random=False))
def test_flattening_and_nesting_again_is_the_identity(jets_of_event, random):
    values = [[random.randint(0, 99) for _ in range(n)] for n in jets_of_event]
    deep = [[[random.random() for _ in range(random.randint(0, 3))] for _ in event] for event in values]
    branches = {
        "Jet_x": lists(values, np.int64),
        "Jet_deep": nested(deep, np.float64),
        "e": np.arange(len(values)),
    }
    found = Layout(config()).jets(branches, where="a")
    assert ak.unflatten(found.branches["Jet_x"], found.counts_E).tolist() == values
    assert ak.unflatten(found.branches["Jet_deep"].to_awkward(), found.counts_E).tolist() == deep
    assert ak.unflatten(found.branches["e"], found.counts_E).tolist() == [
        [e] * len(x) for e, x in enumerate(values)
    ]
    assert found.entry_J.tolist() == [e for e, x in enumerate(values) for _ in x]
    assert found.index_J.tolist() == [i for x in values for i in range(len(x))]


@settings(max_examples=100, deadline=None)
@given(counts, st.randoms(use_true_random=False))
def test_links_are_what_loops_say(jets_of_event, random):
    particles = [random.randint(0, 4) for _ in jets_of_event]
    tables = [
        [(random.randint(-1, jets - 1), random.randint(-1, n - 1)) for _ in range(random.randint(0, 6))]
        for jets, n in zip(jets_of_event, particles, strict=True)
    ]
    pt = [[100 * event + k for k in range(n)] for event, n in enumerate(particles)]
    own = [
        [random.randint(-1, jets - 1) for _ in range(n)]
        for jets, n in zip(jets_of_event, particles, strict=True)
    ]
    listed = [
        [[row[1] for row in table if row[0] == jet] for jet in range(jets)]
        for jets, table in zip(jets_of_event, tables, strict=True)
    ]
    names = [[7 * k + 3 for k in range(n)] for n in particles]
    branches = {
        "Jet_pt": lists([[1] * jets for jets in jets_of_event]),
        "Jet_pf": nested(listed),
        "Jet_ref": nested([[[7 * k + 3 for k in jet] for jet in event] for event in listed], np.int64),
        "PF_pt": lists(pt, np.int64),
        "PF_id": lists(names, np.uint32),
        "PF_jet": lists(own, np.int64),
        "JetPF_jetIdx": lists([[row[0] for row in table] for table in tables], np.int16),
        "JetPF_pfIdx": lists([[row[1] for row in table] for table in tables], np.int32),
        "JetPF_row": lists([list(range(len(table))) for table in tables], np.int64),
    }
    by_row, rows = [], []
    for event, jets in enumerate(jets_of_event):
        for jet in range(jets):
            of_jet = [(row, k) for row, (j, k) in enumerate(tables[event]) if j == jet and k >= 0]
            by_row.append([pt[event][k] for _, k in of_jet])
            rows.append([row for row, _ in of_jet])
    carried = [
        [pt[event][k] for k in range(particles[event]) if own[event][k] == jet]
        for event, jets in enumerate(jets_of_event)
        for jet in range(jets)
    ]
    assert branch(linked(CROSS), "PF_pt", branches) == by_row
    assert branch(linked(CROSS), "JetPF_row", branches) == rows
    assert branch(linked({"jet": "PF_jet"}), "PF_pt", branches) == carried
    assert branch(linked({"particle": "Jet_pf"}), "PF_pt", branches) == by_row
    assert branch(linked({"particle": "Jet_ref", "id": "PF_id"}), "PF_pt", branches) == by_row


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("rntuple", [False, True])
def test_files_of_events(tmp_path, rntuple):
    path = tmp_path / "events.root"
    branches = {name: x for name, x in EVENTS.items() if name != "Jet_tau"}
    with uproot.recreate(path) as file:
        if rntuple:
            file.mkrntuple("Events", branches)
        else:
            groups = {
                "Jet": ("pt", "d_0", "d_1"),
                "SV": ("mass",),
                "PF": ("pt", "jet"),
                "JetPF": ("jetIdx", "pfIdx", "rel"),
            }
            flat = {name: branches[name] for name in ("MET_pt", "w_0", "w_1")}
            records = {
                name: ak.zip({x: branches[f"{name}_{x}"] for x in fields}) for name, fields in groups.items()
            }
            types = {name: x.dtype for name, x in flat.items()} | {
                name: x.type for name, x in records.items()
            }
            file.mktree("Events", types)
            file["Events"].extend(flat | records)
    columns = Columns(linked(CROSS, features={"pt": "PF_pt", "rel": "JetPF_rel"}))
    source = source_of(path)
    needed = columns.branches(source.branches, where=str(path), sample_weight=1.0)
    chunk = source.read(needed, 0, 3)
    table = columns.table(chunk.branches, start=0, sample="A", sample_weight=1.0, where=str(path))
    assert table.inputs.collections["pf"].lengths_J.tolist() == [2, 1, 1]
    assert np.allclose(table.inputs.collections["pf"].values_NF, [[12, 0.2], [10, 0.3], [10, 0.1], [15, 0.5]])


def test_an_rntuple_as_atlas_writes_it(tmp_path):
    path = tmp_path / "physlite.root"
    ghost = ak.zip({key: ATLAS[f"Jets:Ghost.{key}"] for key in ("m_persKey", "m_persIndex")})
    fields = {"Jets:pt": ATLAS["Jets:pt"], "Jets:Ghost": ghost, "Tracks:z0": ATLAS["Tracks:z0"]}
    with uproot.recreate(path) as file:
        file.mkrntuple("EventData", fields)
    columns = Columns(atlas())
    source = source_of(path)
    needed = columns.branches(source.branches, where=str(path), sample_weight=1.0)
    table = columns.table(
        source.read(needed, 0, 2).branches, start=0, sample="A", sample_weight=1.0, where=str(path)
    )
    particles = table.inputs.collections["tracks"]
    assert particles.lengths_J.tolist() == [2, 0, 1]
    assert particles.values_NF.tolist() == [[3], [1], [5]]


PAGE = (Path(__file__).parents[2] / "docs" / "layout.md").read_text(encoding="utf-8")


def test_the_examples_of_the_documentation_are_valid():
    texts = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(texts) == 5
    for text in texts:
        document = yaml.safe_load(text)
        data = {"train": {"A": "a.root"}, **document["data"]}
        classes = {"A": {"sample": next(iter(data["train"]))}, "B": "x < 0"}
        inputs = document.get("inputs", {"jet": {"features": {"x": "x"}}})
        Layout(DataConfig.model_validate({"data": data, "classes": classes, "inputs": inputs}))


def test_the_words_of_energies_are_documented():
    page = " ".join(PAGE.split())
    assert " ".join(sorted(LAST_WORDS)) in page
    assert " ".join(sorted(FIRST_WORDS)) in page
