"""The same jets get the same scores, whatever the container."""

import dataclasses

import h5py
import numpy as np
import pytest

import jettagger
import other_containers as oc
from jettagger.data.prepared import prepare
from toy_jets import toy_jets


def scores(tagger, written: oc.Written) -> np.ndarray:
    there = dataclasses.replace(tagger, config=oc.config_for(written))
    columns = [scored.columns for scored in there.predict_file(written.path, spectators=False)]
    return np.concatenate([np.stack([c[name] for name in tagger.classes], axis=1) for c in columns])


@pytest.fixture(scope="module")
def tagger(trained_run):
    return jettagger.load(trained_run / "tagger")


@pytest.mark.parametrize(
    "write",
    [oc.rntuple, oc.parquet, oc.atlas, oc.jetnet, oc.energyflow, oc.pandas_fixed, oc.pandas_table],
)
def test_the_same_jets_get_the_same_scores(tagger, tmp_path, write):
    jets = toy_jets("Top", 200, 3)
    expected = scores(tagger, oc.ttree(tmp_path, jets))
    assert expected.shape == (200, 2)
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


@pytest.mark.parametrize("write", [oc.parquet, oc.atlas, oc.energyflow])
def test_training_files_are_prepared_from_any_container(tmp_path, write):
    found = []
    for of in (oc.ttree, write):
        files = {}
        for name in ("QCD", "Top"):
            (tmp_path / of.__name__ / name).mkdir(parents=True)
            files[name] = of(tmp_path / of.__name__ / name, toy_jets(name, 120, 1))
        samples = {name: str(file.path) for name, file in files.items()}
        config = oc.config_for(files["Top"], prepared=str(tmp_path / "prepared"), train=samples)
        found.append(prepare(config, samples, role="data.train"))
    root, other = found
    rows = np.arange(len(root))
    assert len(rows) > 100
    assert np.array_equal(root.labels_J, other.labels_J)
    ours, theirs = root.read(rows, root.spec), other.read(rows, other.spec)
    assert np.array_equal(ours.jet_JF, theirs.jet_JF, equal_nan=True)
    for left, right in zip(ours.collections["particles"], theirs.collections["particles"], strict=True):
        assert np.array_equal(left, right)
