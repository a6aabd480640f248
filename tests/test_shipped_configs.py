"""Every shipped YAML runs on small files with exactly the schema of the data it is for."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

import jettagger
from jettagger import configuration
from jettagger.data.locations import find_files
from schemas import atlas, jetclass, jetclass2, jetnet, pfnano, quark_gluon, simulation, top_tagging

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SCHEMAS = {
    "atlas_hdf5": atlas.write,
    "cms_pfnano_ak4": pfnano.write_ak4,
    "cms_pfnano_ak8": pfnano.write_ak8,
    "image_cnn": simulation.write,
    "jetclass2": jetclass2.write,
    "jetclass_full": jetclass.write,
    "jetclass_kin": jetclass.write,
    "jetclass_kinpid": jetclass.write,
    "jetnet": jetnet.write,
    "mlp": simulation.write,
    "particle_cnn": simulation.write,
    "quark_gluon": quark_gluon.write,
    "top_tagging": top_tagging.write,
}
"""What writes the files that a config reads, into the folders that it names."""
SPLIT = {name: "data.validation=0.5" for name in ("atlas_hdf5", "cms_pfnano_ak4", "cms_pfnano_ak8", "jetnet")}
"""Of few jets a small fraction may hold none of a class."""
QUICK = ("training.epochs=1", "training.batch_size=64", "training.threads=1", "evaluation.bootstrap=5")


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """For the name of a config: the folder in which it finds its files, and how many jets it is tested on."""
    made = {}

    def write(name):
        schema = SCHEMAS[name]
        if schema not in made:
            folder = tmp_path_factory.mktemp(name)
            made[schema] = (folder, schema(folder))
        return made[schema]

    return write


def test_every_config_has_a_schema():
    assert sorted(SCHEMAS) == [path.stem for path in CONFIGS]


def test_every_config_is_in_the_page_of_datasets():
    page = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert set(re.findall(r"configs/(\w+)\.yaml", page)) >= {path.stem for path in CONFIGS}


def files_to_score(config):
    """The files of the test samples; of the training samples where there are no others."""
    for name, sample in (config.data.test or config.data.train).items():
        yield from find_files(getattr(sample, "files", sample), where=name)


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_prepares_trains_and_predicts(path, written, command, tmp_path, monkeypatch):
    folder, jets = written(path.stem)
    monkeypatch.chdir(folder)
    changes = [*QUICK, f"data.prepared={tmp_path / 'prepared'}", *filter(None, [SPLIT.get(path.stem)])]
    settings = [word for change in changes for word in ("--set", change)]

    def run(*arguments):
        outcome = command(*arguments)
        assert outcome.status == 0, outcome.error

    run("prepare", path, *settings)
    run("train", path, *settings, "--output", tmp_path / "run")
    files = files_to_score(configuration.load(path))
    run("predict", tmp_path / "run", *files, "--output", tmp_path / "scores.h5")

    tagger = jettagger.load(tmp_path / "run")
    with h5py.File(tmp_path / "scores.h5") as file:
        scores = {name: file[name][...] for name in file}
    probabilities = np.stack([scores[name] for name in tagger.classes], axis=1)
    assert len(probabilities) == jets
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert np.ptp(probabilities, axis=0).min() > 0
    assert set(tagger.config.spectators) <= scores.keys()
