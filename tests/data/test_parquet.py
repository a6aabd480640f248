"""Parquet files."""

import sys

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import other_containers as oc
from jettagger.data.containers import base, parquet
from jettagger.data.reader import source_of
from jettagger.errors import JettaggerError
from jettagger.expressions.jagged import Jagged, from_branch
from toy_jets import toy_jets


def written(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)
    return path


def read(path, start=0, stop=None):
    source = source_of(path)
    return dict(source.read(source.branches, start, source.entries if stop is None else stop).branches)


@pytest.mark.parametrize("rows", [7, 100, 1000])
def test_row_groups_are_cut_and_joined(tmp_path, monkeypatch, rows):
    jets = toy_jets("QCD", 250, 1)
    source = source_of(oc.parquet(tmp_path, jets, row_group_size=rows).path)
    monkeypatch.setattr(base, "CHUNK_BYTES", 4000)
    monkeypatch.setattr(parquet, "BATCH_BYTES", 700)
    chunks = list(source.chunks(["part_px", "jet_pt", "label_QCD"]))
    assert len(chunks) > 3
    assert [chunk.start for chunk in chunks[1:]] == [chunk.stop for chunk in chunks[:-1]]
    assert (chunks[0].start, chunks[-1].stop) == (0, 250)
    px = ak.concatenate([chunk.branches["part_px"] for chunk in chunks])
    assert ak.array_equal(px, jets["part_px"], dtype_exact=False)
    assert np.array_equal(np.concatenate([c.branches["jet_pt"] for c in chunks]), jets["jet_pt"])
    assert np.array_equal(np.concatenate([c.branches["label_QCD"] for c in chunks]), jets["label_QCD"])


def test_ranges_in_any_order(tmp_path, monkeypatch):
    jets = toy_jets("QCD", 250, 1)
    source = source_of(oc.parquet(tmp_path, jets).path)
    monkeypatch.setattr(parquet, "BATCH_BYTES", 700)
    for start, stop in [
        (100, 200),
        (210, 220),
        (0, 10),
        (10, 10),
        (69, 71),
        (249, 250),
        (250, 250),
        (0, 250),
    ]:
        found = source.read(["part_px"], start, stop).branches["part_px"]
        assert ak.to_list(found) == ak.to_list(jets["part_px"][start:stop])


def test_kinds_of_columns(tmp_path):
    found = read(
        written(
            tmp_path / "a.parquet",
            {
                "fixed": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float32(), 2)),
                "large": pa.array([[1.0], [], [2.0, 3.0]], pa.large_list(pa.float64())),
                "holes": pa.array([[1.0, None], [], [2.0]], pa.list_(pa.float32())),
                "some": pa.array([1.0, None, 2.0], pa.float32()),
                "none": pa.nulls(3),
                "kind": pa.array([5, 6, 5]).dictionary_encode(),
                "half": pa.array(np.arange(3, dtype=np.float16)),
                "decimal": pa.array([1, 2, 3], pa.decimal128(5, 2)),
                "jet": pa.array([{"pt": 1.0, "tag": {"b": True}}] * 3),
                "part": pa.array([[{"x": 1, "y": 2.0}], [], [{"x": 3, "y": 4.0}] * 2]),
                "text": pa.array(["a", "b", "c"]),
            },
        ),
        1,
    )
    values = {name: from_branch(name, array) for name, array in found.items() if name != "text"}
    assert {name for name, value in values.items() if isinstance(value, Jagged)} == {
        *("fixed", "large", "holes", "part.x", "part.y")
    }
    assert np.array_equal(values["fixed"].values, [3, 4, 5, 6])
    assert np.array_equal(values["large"].values, [2, 3])
    assert np.array_equal(values["part.y"].values, [4, 4])
    assert np.array_equal(values["part.x"].offsets, [0, 0, 2])
    assert np.array_equal(values["some"], [np.nan, 2], equal_nan=True)
    assert np.isnan(values["none"]).all()
    assert np.array_equal(values["kind"], [6, 5])
    assert np.array_equal(values["decimal"], [2, 3])
    assert values["jet.tag.b"].dtype == bool
    with pytest.raises(JettaggerError, match="branch 'text' holds text"):
        from_branch("text", found["text"])


def test_holes_in_whole_numbers_and_lists_are_refused(tmp_path):
    columns = {"n": pa.array([1, None, 2]), "x": pa.array([[1.0], None, [2.0]])}
    found = read(written(tmp_path / "a.parquet", columns))
    with pytest.raises(
        JettaggerError, match=r"branch 'n' has missing values \(None\), which int64 cannot hold"
    ):
        from_branch("n", found["n"])
    with pytest.raises(JettaggerError, match="branch 'x' has None instead of a list of particles"):
        from_branch("x", found["x"])
    holes = read(written(tmp_path / "b.parquet", {"x": pa.array([[1.0, None], [2.0]])}))["x"]
    assert np.array_equal(from_branch("x", holes).values, [1, np.nan, 2], equal_nan=True)


def test_awkward_arrays_are_read(tmp_path):
    jets = ak.Array([{"part": [{"pt": 1.0}, {"pt": 2.0}], "m": 3.0}, {"part": [], "m": 4.0}])
    ak.to_parquet(jets, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert ak.to_list(found["part.pt"]) == [[1.0, 2.0], []]
    ak.to_parquet(jets, tmp_path / "b.parquet", extensionarray=True)
    assert ak.to_list(read(tmp_path / "b.parquet")["part.pt"]) == [[1.0, 2.0], []]


def test_no_rows(tmp_path):
    path = written(
        tmp_path / "a.parquet", {"x": pa.array([], pa.float32()), "p": pa.array([], pa.list_(pa.int8()))}
    )
    [chunk] = source_of(path).chunks(["x", "p"])
    assert (chunk.start, chunk.stop) == (0, 0)


def test_page_checksums_are_compared(tmp_path):
    path = written(
        tmp_path / "a.parquet",
        {"x": np.random.default_rng(1).normal(size=1000)},
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    content = bytearray(path.read_bytes())
    content[4000] ^= 1
    path.write_bytes(content)
    with pytest.raises(JettaggerError, match=r"cannot read .*a\.parquet: .*CRC"):
        read(path)


def test_a_name_that_stands_twice(tmp_path):
    table = pa.table({"jet": pa.array([{"pt": 1.0}]), "jet.pt": [2.0]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(JettaggerError, match=r"a\.parquet: a column's name stands twice"):
        _ = source_of(tmp_path / "a.parquet").branches


def test_without_pyarrow(tmp_path, monkeypatch):
    path = written(tmp_path / "a.parquet", {"x": [1.0]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        JettaggerError, match=r'parquet files need pyarrow \(pip install "jettagger\[parquet\]"\)'
    ):
        _ = source_of(path).entries
