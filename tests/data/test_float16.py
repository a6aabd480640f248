"""data.storage: float16: what it costs is measured, and what it cannot hold is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_columns import config

from jettagger.baselines import BaselinesSection
from jettagger.data.batches import Batches
from jettagger.data.prepared import prepare
from jettagger.data.shards import SMALLEST_NORMAL, halved
from jettagger.errors import JettaggerError
from jettagger.training.sides import prepare_sides
from toy_jets import toy_jets, write_jets


def test_a_dataset(tmp_path):
    for name in ("QCD", "Top"):
        write_jets(tmp_path / f"{name}.root", toy_jets(name, 100, 1))
    samples = {name: f"{tmp_path}/{name}.root" for name in ("QCD", "Top")}
    same = {"data__prepared": str(tmp_path / "prepared"), "data__train": samples, "data__test": {}}
    whole, half = config(**same), config(data__storage="float16", **same)
    exact = prepare(whole, samples, role="data.train")
    said: list[str] = []
    stored = prepare_sides(half, BaselinesSection(), said.append).train
    assert exact.rounding == {}
    assert stored.key != exact.key
    rows = np.arange(len(exact))
    one, other = (found.read(rows, found.spec) for found in (exact, stored))
    assert np.array_equal(one.jet_JF, other.jet_JF, equal_nan=True)
    mine, its = one.collections["particles"], other.collections["particles"]
    assert np.array_equal(mine.lengths_J, its.lengths_J)
    names = ["log_pt", "deta", "charge", "coordinates.eta", "coordinates.phi", "coordinates.pt"]
    expected = np.hstack([mine.values_NF, mine.coordinates_NK])
    found = np.hstack([its.values_NF, its.coordinates_NK])
    assert found.dtype == np.float32
    assert np.array_equal(found, expected.astype(np.float16).astype(np.float32))
    for name, errors in zip(names, np.abs(found - expected).max(0), strict=True):
        assert stored.rounding[f"particles.{name}"].absolute == pytest.approx(errors, rel=1e-6)
    assert stored.rounding["particles.charge"] == (0, 0)
    assert 1e-4 < stored.rounding["particles.log_pt"].relative <= 2**-11
    assert stored.records[0].size < 0.75 * exact.records[0].size
    batch = next(Batches(stored, rows, 10).epoch(0))
    assert batch.inputs.collections["particles"].features_NF.dtype.itemsize == 4
    line = next(line for line in said if "stored as float16" in line)
    assert "relative error at most 4.9e-04" in line
    assert "particles.log_pt" in line


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(0, 30), st.just(1)), elements=st.floats(-6e4, 6e4, width=32)
    )
)
def test_errors_are_those_of_the_format(values):
    halves, errors = halved(values, ["x"])
    assert halves.dtype == np.float16
    assert errors["x"].relative <= 2**-11
    below = np.abs(values) < SMALLEST_NORMAL
    assert (np.abs(halves[below].astype(np.float32) - values[below]) <= 2**-25).all()


def test_missing_values_stay_and_overflow_is_refused():
    values = np.array([[np.nan], [np.inf], [-np.inf], [1.0]], np.float32)
    halves, errors = halved(values, ["x"])
    assert np.array_equal(halves.astype(np.float32), values, equal_nan=True)
    assert errors["x"] == (0, 0)
    with pytest.raises(
        JettaggerError,
        match=r"float16 ends at 65504, and 1 values of inputs\.particles\.x .*largest is 70000\)",
    ):
        halved(np.array([[7e4], [np.inf]], np.float32), ["particles.x"])
