"""Tables of pandas in HDF5, read without pandas."""

import pickle
import warnings

import h5py
import numpy as np
import pandas as pd
import pytest

from jettagger.data.containers.base import Opening
from jettagger.data.reader import source_of
from jettagger.errors import JettaggerError

FORMATS = [
    {"format": "fixed"},
    {"format": "table"},
    {"format": "table", "data_columns": ["is_signal_new"], "complib": "zlib", "complevel": 5},
]


def top_tagging(jets=30, particles=20):
    """The columns of the Top Tagging Reference, with fewer particles."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(jets, 4 * particles)).astype(np.float32)
    names = [f"{component}_{number}" for number in range(particles) for component in ("E", "PX", "PY", "PZ")]
    frame = pd.DataFrame(values, columns=names)
    return frame.assign(truthE=rng.normal(size=jets), ttv=1, is_signal_new=np.arange(jets) % 2)


def written(path, frame, key="table", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame.to_hdf(path, key=key, **options)
    return path


@pytest.mark.parametrize("options", FORMATS)
def test_columns_by_name(tmp_path, options):
    frame = top_tagging()
    source = source_of(written(tmp_path / "a.h5", frame, **options))
    assert source.entries == 30
    assert set(source.branches) == set(frame.columns)
    found = source.read(source.branches, 5, 25).branches
    for name in frame.columns:
        assert np.array_equal(found[name], frame[name][5:25])
    # All columns of a block cost one read of it.
    assert source._bytes(["E_0"]) == source._bytes([name for name in frame if name[-1].isdigit()])


def test_several_tables(tmp_path):
    path = written(tmp_path / "a.h5", top_tagging(5), key="train", format="fixed")
    written(path, top_tagging(3), key="deep/test", format="table")
    with pytest.raises(
        JettaggerError, match=r"name one of its tables with data\.tree \(found: deep/test, train\)"
    ):
        _ = source_of(path).entries
    assert source_of(path, Opening("train")).entries == 5
    assert source_of(path, Opening("/deep/test")).entries == 3
    with pytest.raises(JettaggerError, match=r"a\.h5: unknown table 'trian': did you mean 'train'"):
        _ = source_of(path, Opening("trian")).entries


def test_texts_and_numbers_as_names(tmp_path):
    frame = pd.DataFrame({"x": [1.0, 2.0], "text": ["a", "b"]})
    assert source_of(written(tmp_path / "a.h5", frame, format="fixed")).branches == ("x",)
    numbered = pd.DataFrame(np.ones((3, 2)))
    assert source_of(written(tmp_path / "b.h5", numbered, format="fixed")).branches == ("c0", "c1")


def test_other_things_of_pandas_are_refused(tmp_path):
    path = written(tmp_path / "a.h5", pd.Series([1.0, 2.0], name="x"), key="s")
    with pytest.raises(JettaggerError, match=r"a\.h5: 's' is a pandas series: only a DataFrame is read"):
        _ = source_of(path).entries
    nested = pd.DataFrame(np.ones((2, 2)), columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")]))
    path = written(tmp_path / "b.h5", nested, key="t", format="fixed")
    with pytest.raises(JettaggerError, match=r"b\.h5: 't' has columns of the kind 'multi'"):
        _ = source_of(path).entries
    path = written(tmp_path / "c.h5", pd.DataFrame({"x": ["a", "b"]}), key="t", format="fixed")
    with pytest.raises(JettaggerError, match=r"c\.h5: the pandas table 't' has no column of numbers"):
        _ = source_of(path).entries


class _Harmful:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (pickle.dumps(_Harmful(), 0), "damaged or not safe to read .it asks for "),
        (b"(lp0\nVE_0", "damaged or not safe to read"),
        (pickle.dumps({"E_0": 1}, 0), "the column names are a dict, not a list"),
        (pickle.dumps(["E_0"], 0), "has 1 names for 80 columns"),
    ],
)
def test_pickled_names_run_no_code(tmp_path, names, fault):
    path = written(tmp_path / "a.h5", top_tagging(), format="table")
    with h5py.File(path, "a") as file:
        file["table/table"].attrs["values_block_0_kind"] = np.bytes_(names)
    with pytest.raises(JettaggerError, match=rf"a\.h5: .*{fault}"):
        _ = source_of(path).entries


def test_blocks_of_different_lengths(tmp_path):
    path = written(tmp_path / "a.h5", top_tagging(), format="fixed")
    with h5py.File(path, "a") as file:
        short = file["table/block1_values"][:7]
        del file["table/block1_values"]
        file["table/block1_values"] = short
    with pytest.raises(
        JettaggerError, match=r"the table 'table' has blocks of \[7, 30\] rows: it is damaged"
    ):
        _ = source_of(path).entries


def test_an_unknown_filter_is_named(tmp_path, monkeypatch):
    path = written(tmp_path / "a.h5", top_tagging(), format="fixed", complib="zlib", complevel=1)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    monkeypatch.setitem(__import__("sys").modules, "hdf5plugin", None)
    with pytest.raises(
        JettaggerError, match=r"'table/.*' is compressed with the HDF5 filter .* pip install hdf5plugin"
    ):
        _ = source_of(path).entries
