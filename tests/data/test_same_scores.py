"""The same jets get the same scores, whatever the container."""

import dataclasses

import h5py
import numpy as np
import pytest

import jettagger
import other_containers as oc
from jettagger.data.reader import source_of
from toy_jets import FLAT, JAGGED, toy_jets


def scores(tagger, written: oc.Written) -> np.ndarray:
    there = dataclasses.replace(tagger, config=oc.config_for(written))
    columns = [columns for _, columns in there.predict_file(written.path, spectators=False)]
    return np.concatenate([np.stack([c[name] for name in tagger.classes], axis=1) for c in columns])


@pytest.fixture(scope="module")
def tagger(trained_run):
    return jettagger.load(trained_run / "tagger")


@pytest.mark.parametrize("write", [oc.rntuple, oc.parquet, oc.atlas])
def test_jagged_jets(tagger, tmp_path, write):
    jets = toy_jets("Top", 200, 3)
    expected = scores(tagger, oc.ttree(tmp_path, jets))
    assert expected.shape == (200, 2)
    assert np.array_equal(scores(tagger, write(tmp_path, jets)), expected)


@pytest.mark.parametrize(
    "write", [oc.parquet, oc.atlas, oc.jetnet, oc.energyflow, oc.pandas_fixed, oc.pandas_table]
)
def test_jets_of_one_length(tagger, tmp_path, write):
    jets = oc.rectangular(toy_jets("Top", 150, 3), 12)
    expected = scores(tagger, oc.ttree(tmp_path, jets))
    assert len(np.unique(expected)) > 200
    assert np.array_equal(scores(tagger, write(tmp_path, jets)), expected)


def test_the_command_predicts_from_any_container(trained_run, tmp_path, command):
    jets = oc.rectangular(toy_jets("Top", 90, 3), 12)
    written = []
    for write in (oc.ttree, oc.parquet, oc.pandas_fixed):
        output = tmp_path / f"{write.__name__}.h5"
        done = command("predict", trained_run, write(tmp_path, jets).path, "--output", output)
        assert (done.status, done.error) == (0, "")
        assert "90 jets scored" in done.out
        with h5py.File(output) as file:
            written.append(file["Top"][()])
    assert np.array_equal(written[0], written[1])
    assert np.array_equal(written[0], written[2])


def test_the_branches_are_those_of_toy_jets(tmp_path):
    jets = oc.rectangular(toy_jets("Top", 30, 3), 12)
    for write in (oc.parquet, oc.pandas_fixed, oc.pandas_table):
        assert {*FLAT, *JAGGED} <= set(source_of(write(tmp_path, jets).path).branches)
