"""Scores on disk: every row is there, in every format, or no file is."""

import json
import sys

import h5py
import numpy as np
import pytest
import uproot

from jettagger.errors import JettaggerError
from jettagger.evaluation import output
from jettagger.evaluation.output import write_scores
from jettagger.evaluation.score_files import RootFile

SUFFIXES = [".root", ".h5", ".hdf5", ".parquet"]


def columns(rows):
    rng = np.random.default_rng(0)
    return {
        "event_number": np.arange(rows, dtype=np.int64) + 2**40,
        "Top": rng.random(rows, dtype=np.float32),
        "mutual_information": rng.random(rows),
        "passes_selection": rng.random(rows) < 0.5,
    }


def read(path):
    if path.suffix == ".root":
        return uproot.open(path)["tree"].arrays(library="np")
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path) as file:
            return {name: file[name][...] for name in file}
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_what_is_written_is_read(tmp_path, suffix, rows):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"scores{suffix}"
    write_scores(path, columns(rows), {"tagger": "net"})
    found = read(path)
    for name, column in columns(rows).items():
        np.testing.assert_array_equal(found[name], column)
        assert found[name].dtype == column.dtype
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_row_after_a_full_block_is_kept(tmp_path, suffix):
    path = tmp_path / f"scores{suffix}"
    write_scores(path, {"x": np.arange(1048577)})
    found = read(path)["x"]
    assert (len(found), found[-1]) == (1048577, 1048576)


def test_blocks_join_without_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "ROWS_AT_ONCE", 10)
    write_scores(tmp_path / "scores.root", {"x": np.arange(21)})
    np.testing.assert_array_equal(read(tmp_path / "scores.root")["x"], np.arange(21))


def test_attributes_are_kept(tmp_path):
    attributes = {"tagger": "net", "classes": ["QCD", "Top"]}
    for suffix in SUFFIXES[:2]:
        write_scores(tmp_path / f"scores{suffix}", columns(3), attributes)
    assert json.loads(uproot.open(tmp_path / "scores.root")["attributes"]) == attributes
    with h5py.File(tmp_path / "scores.h5") as file:
        assert (file.attrs["tagger"], json.loads(file.attrs["classes"])) == ("net", ["QCD", "Top"])


def test_nan_in_the_last_row_is_no_difference(tmp_path):
    for suffix in SUFFIXES[:2]:
        write_scores(tmp_path / f"scores{suffix}", {"x": np.array([1.0, np.nan])})


def test_an_unknown_suffix_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(
        JettaggerError, match=r"unknown suffix '.roots': did you mean '.root'\? \(allowed: .root, .h5"
    ):
        write_scores(tmp_path / "scores.roots", columns(1))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(JettaggerError, match=r'pip install "jettagger\[parquet\]"'):
        write_scores(tmp_path / "scores.parquet", columns(1))
    assert list(tmp_path.iterdir()) == []


def test_a_lost_row_is_noticed_and_leaves_no_file(tmp_path, monkeypatch):
    class Forgetful(RootFile):
        def write(self, block):
            super().write(block.part(0, len(block) - 1))

    monkeypatch.setitem(output.CONTAINERS, ".root", Forgetful)
    with pytest.raises(JettaggerError, match="5 rows were to be written, 4 are in the file"):
        write_scores(tmp_path / "scores.root", columns(5))
    assert list(tmp_path.iterdir()) == []


def test_columns_must_be_flat_numbers_of_one_length(tmp_path):
    for bad, text in [
        ({"a": np.arange(2), "b": np.arange(3)}, "equal length"),
        ({"a": np.zeros((2, 2))}, "flat"),
        ({"a": np.array(["x"])}, "not numbers"),
        ({}, "no columns"),
    ]:
        with pytest.raises(ValueError, match=text):
            write_scores(tmp_path / "scores.h5", bad)
