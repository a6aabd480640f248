"""HDF5: compounds, plain arrays, and what is refused."""

import awkward as ak
import h5py
import numpy as np
import pytest

import other_containers as oc
from jettagger.data.containers import base
from jettagger.data.containers.base import Opening
from jettagger.data.reader import source_of
from jettagger.errors import JettaggerError
from jettagger.expressions.jagged import from_branch
from toy_jets import FLAT, JAGGED, toy_jets


def written(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return path


def read(path, opening=Opening()):  # noqa: B008
    source = source_of(path, opening)
    return dict(source.read(source.branches, 0, source.entries).branches)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (64, 5), "compression": "gzip", "fletcher32": True},
        {"chunks": True, "compression": "lzf"},
    ],
)
def test_atlas_compounds(tmp_path, monkeypatch, options):
    jets = toy_jets("QCD", 250, 1)
    source = source_of(oc.atlas(tmp_path, jets, **options).path)
    assert source.branches == (
        *(f"jets.{name}" for name in FLAT),
        *(f"tracks.{name}" for name in JAGGED),
        "tracks.valid",
    )
    monkeypatch.setattr(base, "CHUNK_BYTES", 12_000)
    names = ["tracks.part_px", "tracks.part_charge", "jets.jet_pt", "jets.label_QCD"]
    chunks = list(source.chunks(names))
    assert len(chunks) > 2
    assert (chunks[0].start, chunks[-1].stop) == (0, 250)
    for name in ("part_px", "part_charge"):
        found = ak.concatenate([chunk.branches[f"tracks.{name}"] for chunk in chunks])
        assert ak.array_equal(found, jets[name], dtype_exact=False)
    pt = np.concatenate([chunk.branches["jets.jet_pt"] for chunk in chunks])
    assert np.array_equal(pt, jets["jet_pt"])
    assert all(chunk.branches["jets.label_QCD"].dtype == bool for chunk in chunks)


def test_valid_counts_the_filled_slots(tmp_path):
    jets = toy_jets("QCD", 40, 1)
    valid = read(oc.atlas(tmp_path, jets).path)["tracks.valid"]
    assert ak.all(valid)
    assert ak.to_list(ak.num(valid)) == ak.to_list(ak.num(jets["part_px"]))


def test_ranges_end_on_chunks(tmp_path, monkeypatch):
    source = source_of(oc.atlas(tmp_path, toy_jets("QCD", 250, 1), chunks=(64, 5)).path)
    monkeypatch.setattr(base, "CHUNK_BYTES", 1)
    assert source.ranges(["tracks.part_px"]) == [(0, 64), (64, 128), (128, 192), (192, 250)]


def test_fields_of_fields_half_floats_and_sub_arrays(tmp_path):
    inner = np.dtype([("x", np.float16), ("y", ">f8")])
    jets = np.zeros(7, [("p", inner), ("tau", np.float32, (3,)), ("n", np.int8)])
    jets["p"]["x"], jets["p"]["y"] = np.arange(7), -np.arange(7)
    jets["tau"] = np.arange(21).reshape(7, 3)
    found = read(written(tmp_path / "a.h5", jets=jets))
    assert list(found) == ["jets.n", "jets.p.x", "jets.p.y", "jets.tau"]
    assert from_branch("x", found["jets.p.x"]).dtype == np.float32
    assert np.array_equal(found["jets.p.y"], -np.arange(7))
    assert np.array_equal(from_branch("tau", found["jets.tau"]).counts, np.full(7, 3))
    named = read(tmp_path / "a.h5", Opening(columns=(("jets.tau", ("one", "two", "three")),)))
    assert np.array_equal(named["jets.tau.two"], np.arange(7) * 3 + 1)


def test_the_last_axis_takes_names(tmp_path):
    particles = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3)
    path = written(
        tmp_path / "a.h5", particle_features=particles, jet_features=particles[:, 0], group__w=np.ones(5)
    )
    assert set(source_of(path).branches) == {
        *("particle_features.c0", "particle_features.c1", "particle_features.c2"),
        *("jet_features", "group.w"),
    }
    names = (("particle_features", ("eta", "phi", "pt")), ("jet_features", ("pt", "eta", "mass")))
    found = read(path, Opening(columns=names))
    assert np.array_equal(found["particle_features.phi"], particles[:, :, 1])
    assert np.array_equal(found["jet_features.mass"], particles[:, 0, 2])
    with pytest.raises(
        JettaggerError, match=r"a\.h5: data\.columns\.jet_features: 2 names \(pt, eta\) .* which has length 3"
    ):
        read(path, Opening(columns=(("jet_features", ("pt", "eta")),)))
    with pytest.raises(JettaggerError, match=r"data\.columns\.group\.w: .* one value an entry and no axis"):
        read(path, Opening(columns=(("group.w", ("pt",)),)))
    with pytest.raises(JettaggerError, match=r"data\.columns\.jet_features: a name stands twice"):
        read(path, Opening(columns=(("jet_features", ("pt", "pt", "m")),)))
    with pytest.raises(
        JettaggerError, match=r"data\.columns: unknown array 'jet_feature': did you mean 'jet_features'"
    ):
        read(path, Opening(columns=(("jet_feature", ("pt", "eta", "m")),)))


def test_metadata_of_another_length_is_left_out(tmp_path):
    path = written(tmp_path / "a.h5", pt=np.ones(9), eta=np.ones(9), bins=np.ones(4), scalar=3.0)
    assert source_of(path).branches == ("eta", "pt")


def test_classes_in_datasets_of_their_own(tmp_path):
    path = written(tmp_path / "a.h5", QCD=np.ones((9, 4)), TT=np.ones((7, 4)))
    with pytest.raises(JettaggerError, match=r"different lengths \(7: TT; 9: QCD\): name .* by data\.tree"):
        _ = source_of(path).entries
    assert source_of(path, Opening("QCD")).branches == ("QCD",)
    assert source_of(path, Opening("TT")).entries == 7
    with pytest.raises(JettaggerError, match=r"a\.h5: unknown group or dataset 'QDC': did you mean 'QCD'"):
        _ = source_of(path, Opening("QDC")).entries


def test_a_tree_is_a_group_or_a_compound(tmp_path):
    compound = np.zeros(5, [("pt", np.float32)])
    path = written(tmp_path / "a.h5", train__jets=compound, train__w=np.ones(5), test__jets=compound[:2])
    assert source_of(path, Opening("train")).branches == ("jets.pt", "w")
    assert source_of(path, Opening("/train/jets")).branches == ("pt",)
    assert source_of(path, Opening("test")).entries == 2


def test_no_rows_and_no_datasets(tmp_path):
    path = written(tmp_path / "a.h5", pt=np.ones(0), x=np.ones((0, 3)))
    assert [chunk.stop for chunk in source_of(path).chunks(["pt", "x"])] == [0]
    with pytest.raises(JettaggerError, match=r"b\.h5 holds no array with rows"):
        _ = source_of(written(tmp_path / "b.h5", scalar=1.0)).entries


def test_what_was_never_written_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", shape=(100,), chunks=(10,), dtype="f4")[:35] = 1
    with pytest.raises(JettaggerError, match=r"'x' should have 10 chunks, 4 were ever written"):
        _ = source_of(tmp_path / "a.h5").entries
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", shape=(100,), dtype="f4")
    with pytest.raises(JettaggerError, match=r"'x' was made but never written"):
        _ = source_of(tmp_path / "b.h5").entries


def test_datasets_in_other_files_are_refused(tmp_path):
    path = written(tmp_path / "a.h5", x=np.ones(5))
    layout = h5py.VirtualLayout((5,), dtype="f8")
    layout[:] = h5py.VirtualSource(path, "x", (5,))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    with pytest.raises(
        JettaggerError, match=r"b\.h5: the dataset 'x' lies in other files: give jettagger those"
    ):
        _ = source_of(tmp_path / "b.h5").entries


def test_identity_follows_content(tmp_path):
    rng = np.random.default_rng(1)
    values = rng.normal(size=400_000)
    first = written(tmp_path / "a.h5", x=values)
    second = tmp_path / "b.h5"
    second.write_bytes(first.read_bytes())
    other = written(tmp_path / "c.h5", x=values * 1.01)
    assert source_of(first).identity == source_of(second).identity != source_of(other).identity
    small = written(tmp_path / "d.h5", x=values[:1000])
    before = source_of(small).identity
    values[500] += 1
    assert source_of(written(tmp_path / "d.h5", x=values[:1000])).identity != before


def test_a_column_that_is_written_anew_in_place_is_another_content(tmp_path):
    path = tmp_path / "large.h5"
    jets = 40_000
    with h5py.File(path, "w") as file:
        file["x"] = np.random.default_rng(1).normal(size=(jets, 8))
        file["label"] = np.zeros(jets, np.int8)
    before = source_of(path).identity
    assert source_of(path).identity == before
    with h5py.File(path, "r+") as file:
        file["label"][:] = 1
    assert source_of(path).identity != before
