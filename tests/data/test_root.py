"""What ROOT files may hold: every kind of branch, several trees, baskets and clusters of any length."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from jettagger.data.containers import base, ttree
from jettagger.data.containers.base import Opening, moved
from jettagger.data.reader import source_of
from jettagger.errors import JettaggerError
from root_files import compressible_jets, write
from toy_jets import toy_jets


def read(path: Path, *names: str, tree: str | None = None) -> dict[str, list[Any]]:
    source = source_of(path, Opening(tree))
    return {
        k: ak.to_list(v) for k, v in source.read(names or source.branches, 0, source.entries).branches.items()
    }


def test_kinds_of_ttree_branches(tmp_path):
    path = tmp_path / "a.root"
    jagged = ak.Array([[1.5, 2.5], [], [3.5]])
    with uproot.recreate(path) as file:
        file.mktree(
            "tree",
            {
                "fixed": (np.float32, (3,)),
                "matrix": (np.int16, (2, 3)),
                "good": np.bool_,
                "big": np.uint64,
                "part": ak.zip({"px": jagged, "id": ak.values_astype(jagged, np.int64)}).type,
            },
        )
        file["tree"].extend(
            {
                "fixed": np.arange(9, dtype=np.float32).reshape(3, 3),
                "matrix": np.arange(18, dtype=np.int16).reshape(3, 2, 3),
                "good": np.array([True, False, True]),
                "big": np.array([2**64 - 1, 0, 1], np.uint64),
                "part": ak.zip({"px": jagged, "id": ak.values_astype(jagged, np.int64)}),
            }
        )
    found = read(path)
    assert found["fixed"] == np.arange(9).reshape(3, 3).tolist()
    assert found["matrix"] == np.arange(18).reshape(3, 2, 3).tolist()
    assert found["good"] == [True, False, True]
    assert found["big"] == [2**64 - 1, 0, 1]
    assert found["part_px"] == jagged.tolist()
    assert found["part_id"] == [[1, 2], [], [3]]
    assert found["npart"] == [2, 0, 1]


def test_kinds_of_rntuple_fields(tmp_path):
    path = tmp_path / "a.root"
    jets = ak.Array([[{"pt": 1.5, "hits": [1, 2]}, {"pt": 2.5, "hits": []}], []])
    with uproot.recreate(path) as file:
        file.mkrntuple(
            "tree",
            {"jets": jets, "AntiKt:pt": ak.Array([[1.0], []]), "vertex": ak.Array([{"z": 1}, {"z": 2}])},
        )
    source = source_of(path)
    assert set(source.branches) == {"jets.pt", "jets.hits", "AntiKt.pt", "vertex.z"}
    assert read(path) == {
        "jets.pt": [[1.5, 2.5], []],
        "jets.hits": [[[1, 2], []], []],
        "AntiKt.pt": [[1.0], []],
        "vertex.z": [1, 2],
    }
    assert read(path, "jets.hits") == {"jets.hits": [[[1, 2], []], []]}
    with pytest.raises(JettaggerError, match=r"a\.root: unknown branch 'jets\.pz': did you mean 'jets\.pt'"):
        read(path, "jets.pz")


class Branch:
    """As much of uproot's TBranch as naming asks for: uproot writes no split objects."""

    classname = "TBranchElement"
    file = None

    def __init__(self, name: str, interpretation: Any = None, branches: tuple[Any, ...] = ()) -> None:
        self.name, self.interpretation, self.branches = name, interpretation, branches


class SplitTree:
    """Two collections of objects as Delphes writes them, and two branches of one name."""

    def iteritems(self) -> list[tuple[str, Branch]]:
        leaves = [Branch("Jet.PT"), Branch("Jet.Tau[5]")]
        others = [Branch("size."), Branch("size.")]
        pairs = [(f"Jet/{leaf.name}", leaf) for leaf in leaves]
        return [
            ("Jet", Branch("Jet", branches=tuple(leaves))),
            *pairs,
            ("A/size.", others[0]),
            ("B/size.", others[1]),
        ]


def test_names_of_split_branches():
    assert list(ttree.Tree(SplitTree(), "a.root").columns) == ["Jet.PT", "Jet.Tau", "A.size", "B.size"]


def test_members_of_objects_are_columns_of_their_own():
    number = ak.forms.NumpyForm("float64")
    vector = ak.forms.RecordForm(
        [ak.forms.RecordForm([number, number], ["fX", "fY"]), number],
        ["fP", "fE"],
    )
    form = ak.forms.ListOffsetForm("i64", ak.forms.RegularForm(vector, 5))
    assert ttree._ways(form) == [("fP", "fX"), ("fP", "fY"), ("fE",)]


def test_references_are_the_numbers_of_their_objects():
    refs = ak.Array([[{"fName": "", "fSize": 2, "refs": [7, 0x0100000B]}], []])
    column = ttree.Column(None, "Jet/Jet.Constituents", ())
    found = ttree._plain(refs, column, "Jet.Constituents")
    assert found.tolist() == [[[7, 11]], []]
    ids = ttree._plain(ak.Array(np.array([7, 0x0100000B], np.uint32)), column, "Particle.fUniqueID")
    assert ids.tolist() == [7, 11]
    assert ttree._plain(ak.Array([[{"ref": 9}]]), column, "Muon.Particle").tolist() == [[9]]


def test_the_last_cycle_of_a_tree_is_read(tmp_path):
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        file.mktree("tree", {"x": np.int32}).extend({"x": np.array([1], np.int32)})
        file.mktree("tree", {"x": np.int32}).extend({"x": np.array([2, 3], np.int32)})
    assert read(path) == {"x": [2, 3]}


def test_a_usual_tree_is_suggested(tmp_path):
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        for name in ("Runs", "Events", "LuminosityBlocks"):
            file.mktree(name, {"x": np.int32})
    with pytest.raises(
        JettaggerError, match=r"Events, LuminosityBlocks, Runs\), for example data\.tree: Events"
    ):
        _ = source_of(path).entries


@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_a_tree_without_entries(tmp_path, kind):
    source = source_of(write(tmp_path / "a.root", kind, "zlib", compressible_jets(0)))
    assert source.entries == 0
    assert source.ranges(["jet_pt", "part_px"]) == [(0, 0)]
    (chunk,) = source.chunks(["jet_pt", "part_px"])
    assert {name: len(array) for name, array in chunk.branches.items()} == {"jet_pt": 0, "part_px": 0}


def test_branches_of_different_length_are_named(tmp_path):
    path = write(tmp_path / "a.root", "ttree", "zlib", compressible_jets(30))
    source = source_of(path)
    source._tree.columns["jet_pt"].branch._members["fEntries"] = 20
    with pytest.raises(JettaggerError, match=r"a\.root: branch 'jet_pt' has 20 entries, its tree 'tree' 30"):
        source.read(["jet_pt"], 0, 20)


def test_a_list_of_baskets_that_goes_back_is_named(tmp_path):
    path = write(tmp_path / "a.root", "ttree", "zlib", compressible_jets(30), steps=3)
    source = source_of(path)
    branch = source._tree.columns["jet_pt"].branch
    branch._members["fBasketEntry"] = np.array([0, 25, 20, 30])
    with pytest.raises(JettaggerError, match=r"a\.root: branch 'jet_pt': the list of its baskets is damaged"):
        source.read(["jet_pt"], 0, 20)


@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_no_basket_or_page_is_decompressed_twice(tmp_path, monkeypatch, kind):
    path = write(tmp_path / "a.root", kind, "zlib", compressible_jets(1000), steps=13)
    monkeypatch.setattr(base, "CHUNK_BYTES", 9000)
    source = source_of(path)
    names = ["jet_pt", "part_px"]
    assert len(source.ranges(names)) > 3
    blocks = []
    monkeypatch.setattr(
        uproot.compression.decompress,
        "hook_before_block",
        lambda **block: blocks.append(block["start"].index),
    )
    px = ak.concatenate([chunk.branches["part_px"] for chunk in source.chunks(names)])
    assert px.tolist() == compressible_jets(1000)["part_px"].tolist()
    assert len(blocks) == len(set(blocks)) >= 2 * 13


@given(
    entries=st.integers(1, 10_000),
    pieces=st.integers(1, 50),
    offered=st.lists(st.integers(0, 10_000), max_size=60),
)
def test_edges_cover_all_entries_once(entries, pieces, offered):
    edges = [entries * piece // pieces for piece in range(pieces + 1)] if pieces <= entries else [0, entries]
    found = moved(edges, np.unique([x for x in offered if x <= entries]).astype(np.int64))
    assert (found[0], found[-1]) == (0, entries)
    assert all(low < high for low, high in pairwise(found))
    step = max(high - low for low, high in pairwise(edges))
    assert max(np.diff(found)) <= (base.MOST_CHUNKS + 2) * step


def test_edges_fall_on_clusters():
    assert moved([0, 50, 100], np.array([0, 40, 80])) == [0, 40, 100]
    assert moved([0, 50, 100], np.array([0])) == [0, 100]
    assert moved([0, 10, 20, 30, 40], np.array([0])) == [0, 10, 20, 30, 40]
    assert moved([0, 50, 100], np.array([], int)) == [0, 50, 100]


def test_sizes_count_what_is_read(tmp_path):
    jets = toy_jets("QCD", 500, 1)
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        file.mkrntuple("tree", jets)
    particles = int(ak.sum(ak.num(jets["part_px"])))
    assert source_of(path)._bytes(["jet_pt"]) == 4 * 500
    assert source_of(path)._bytes(["part_px", "part_py"]) == pytest.approx(8 * particles + 2 * 8 * 500)


@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_a_branch_of_another_kind_is_found(tmp_path, kind):
    jets = compressible_jets(20)
    first = source_of(write(tmp_path / "a.root", kind, "zlib", jets))
    assert first.kinds(jets) == {
        "jet_pt": "a number",
        "label_QCD": "a number",
        "part_px": "a list of numbers",
    }
    wider = jets | {"jet_pt": jets["jet_pt"].astype(np.float64)}
    seen: dict[str, tuple[str, str]] = {}
    base.same_kinds(seen, first, jets)
    base.same_kinds(seen, source_of(write(tmp_path / "b.root", kind, "zlib", wider)), jets)
    flat = source_of(write(tmp_path / "c.root", kind, "zlib", jets | {"part_px": jets["jet_pt"]}))
    with pytest.raises(
        JettaggerError,
        match=r"c\.root: branch 'part_px' holds a number an entry, in .*a\.root a list of numbers",
    ):
        base.same_kinds(seen, flat, jets)


def test_kinds_in_words():
    def words(values: list[Any]) -> str:
        return base.kind(ak.type(ak.Array(values)).content)

    assert words([1, 2]) == "a number"
    assert words(["a"]) == "text"
    assert words([["a"]]) == "a list of texts"
    assert words([[[1]]]) == "a list of lists of numbers"
    assert words([[[[1]]]]) == "lists in lists in lists"
    assert words([{"x": 1}]) == "a record"
    assert words([[]]) == "a list of nothing"
