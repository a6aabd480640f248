"""Every shipped YAML runs on small files with exactly the schema of the data it is for."""

import re
from pathlib import Path
from typing import NamedTuple

import awkward as ak
import h5py
import numpy as np
import pytest
import torch
import uproot

import jettagger
from jettagger import configuration, models
from jettagger.configuration import Config
from jettagger.data.columns import Columns
from jettagger.data.locations import find_files
from jettagger.data.reader import opening_of, source_of
from jettagger.data.rows import RawInputs
from jettagger.models.parts.summary import summarise
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
    "mass_regression": simulation.write,
    "mlp": simulation.write,
    "p_cnn": jetclass.write,
    "particle_cnn": simulation.write,
    "particle_net": jetclass.write,
    "quark_gluon": quark_gluon.write,
    "top_tagging": top_tagging.write,
}
"""What writes the files that a config reads, into the folders that it names."""
SPLIT = dict.fromkeys(("atlas_hdf5", "cms_pfnano_ak4", "cms_pfnano_ak8", "jetnet"), "data.validation=0.5")
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
    """Sample and file, of the test samples; of the training samples where there are no others."""
    samples = config.data.test or config.data.train
    return [
        (name, file)
        for name, sample in samples.items()
        for file in find_files(getattr(sample, "files", sample), where=name)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_prepares_trains_evaluates_and_predicts(path, written, command, tmp_path, monkeypatch):
    folder, jets = written(path.stem)
    monkeypatch.chdir(folder)
    changes = [*QUICK, f"data.prepared={tmp_path / 'prepared'}", *filter(None, [SPLIT.get(path.stem)])]
    settings = [word for change in changes for word in ("--set", change)]

    def run(*arguments):
        outcome = command(*arguments)
        assert outcome.status == 0, outcome.error

    run("prepare", path, *settings)
    run("train", path, *settings, "--output", tmp_path / "run")
    config = configuration.load(path)
    # The figures of ten classes and more, against each other, take minutes.
    if config.data.test and len(config.classes) <= 5:
        run("evaluate", tmp_path / "run", "--output", tmp_path / "report")
        assert (tmp_path / "report" / "report.json").is_file()
    files = [file for _, file in files_to_score(config)]
    run("predict", tmp_path / "run", *files, "--output", tmp_path / "scores.h5")

    tagger = jettagger.load(tmp_path / "run")
    with h5py.File(tmp_path / "scores.h5") as file:
        scores = {name: file[name][...] for name in file}
    said = np.stack([scores[name] for name in (*tagger.classes, *tagger.targets)], axis=1)
    assert len(said) == jets
    assert np.ptp(said, axis=0).min() > 0
    if tagger.classes:
        np.testing.assert_allclose(said[:, : len(tagger.classes)].sum(axis=1), 1, atol=1e-6)
    assert set(tagger.config.spectators) <= scores.keys()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("jetclass_full", 86_154),  # the particle-flow network of arXiv:2202.03772: 86.1k
        ("p_cnn", 354_540),  # arXiv:2202.03772: 354k
        ("particle_net", 370_156),  # arXiv:2202.03772: 370k
        ("cms_pfnano_ak4", 266_252 - 101),  # DeepJet, but for the output of the sixth class
    ],
)
def test_the_network_has_the_published_size(name, parameters):
    config = configuration.load(ROOT / "configs" / f"{name}.yaml")
    model = models.build(
        config.model, Columns(config).spec, len(config.classes), torch.Generator().manual_seed(0)
    )
    assert summarise(model).parameters == parameters


class First(NamedTuple):
    """The first file that a config tests on, and what it gives."""

    config: Config
    path: Path
    inputs: RawInputs
    spectators: dict[str, np.ndarray]

    def particles(self, feature):
        """One feature of the particles, as lists."""
        found = self.inputs.collections["particles"]
        names = list(self.config.inputs["particles"].features)
        return ak.unflatten(found.values_NF[:, names.index(feature)], found.lengths_J)


@pytest.fixture
def first(written, monkeypatch):
    """For the name of a config: the inputs of its first file, of the jets that pass the selection."""

    def read(name):
        folder, _ = written(name)
        monkeypatch.chdir(folder)
        config = configuration.load(ROOT / "configs" / f"{name}.yaml")
        columns = Columns(config)
        sample, file = files_to_score(config)[0]
        source = source_of(file, opening_of(config))
        needed = columns.branches(source.branches, where=file, sample_weight=1.0)
        [chunk] = source.chunks(needed)
        table = columns.table(chunk.branches, start=0, sample=sample, sample_weight=1.0, where=file)
        return First(config, Path(file), table.inputs, table.spectators)

    return read


def test_top_tagging_leaves_the_padding_out(first):
    pandas = pytest.importorskip("pandas")
    found = first("top_tagging")
    frame = pandas.read_hdf(found.path, "table")
    energy = np.stack([frame[f"E_{slot}"] for slot in range(200)], axis=1)
    momenta = [np.stack([frame[f"{axis}_{slot}"] for slot in range(200)], axis=1) for axis in ("PX", "PY")]
    np.testing.assert_array_equal(found.inputs.collections["particles"].lengths_J, (energy > 0).sum(axis=1))
    jet_pt = np.hypot(*(axis.sum(axis=1, dtype=np.float64) for axis in momenta))
    np.testing.assert_allclose(found.spectators["jet_pt"], jet_pt, rtol=1e-5)
    log_pt = found.particles("part_pt_log")
    np.testing.assert_allclose(log_pt[:, 0], np.log(np.hypot(*(axis[:, 0] for axis in momenta))), rtol=1e-5)


def test_quark_gluon_leaves_the_padding_out(first):
    found = first("quark_gluon")
    with np.load(found.path) as file:
        x = file["X"]
    np.testing.assert_array_equal(
        found.inputs.collections["particles"].lengths_J, (x[..., 0] > 0).sum(axis=1)
    )
    # Charges: of hadrons the sign of the code, of leptons its opposite, of photons and K0 none.
    charges = {211: 1, -211: -1, 11: -1, -11: 1, 13: -1, -13: 1, 22: 0, 130: 0}
    charge = found.particles("charge")
    assert charge[0].tolist() == [charges[int(code)] for pt, _, _, code in x[0] if pt > 0]


def test_jetnet_leaves_the_padding_out(first):
    found = first("jetnet")
    with h5py.File(found.path, locking=False) as file:  # as it may be open already
        mask, pt = file["particle_features"][..., 3], file["jet_features"][:, 0]
    np.testing.assert_array_equal(found.inputs.collections["particles"].lengths_J, mask.sum(axis=1))
    np.testing.assert_allclose(found.spectators["jet_pt"], pt, rtol=1e-6)


def test_atlas_reads_valid_tracks_in_gev(first):
    found = first("atlas_hdf5")
    with h5py.File(found.path, locking=False) as file:  # as it may be open already
        jets, valid = file["jets"][...], file["tracks"]["valid"]
    selected = (jets["pt_btagJes"] > 20e3) & (np.abs(jets["eta_btagJes"]) < 2.5)
    tracks = found.inputs.collections["tracks"]
    np.testing.assert_array_equal(tracks.lengths_J, valid[selected].sum(axis=1))
    assert tracks.values_NF.min() > -999
    np.testing.assert_allclose(found.spectators["jet_pt"], jets["pt_btagJes"][selected] / 1000, rtol=1e-6)


@pytest.mark.slow
def test_ak4_reads_filled_slots_alone(first):
    found = first("cms_pfnano_ak4")
    jets = uproot.open(found.path)["Events"].arrays(filter_name=["Jet_pt", "Jet_eta", "Jet_DeepJet_n*"])
    kept = (jets.Jet_pt > 20) & (abs(jets.Jet_eta) < 2.5)
    for name, kind in (("charged", "Cpfcan"), ("neutral", "Npfcan"), ("vertices", "sv")):
        number = ak.flatten(jets[f"Jet_DeepJet_{pfnano.COUNTS[kind]}"][kept])
        collection = found.inputs.collections[name]
        np.testing.assert_array_equal(collection.lengths_J, np.minimum(number, pfnano.SLOTS[kind]))
        assert collection.values_NF.shape[1] == {"charged": 16, "neutral": 6, "vertices": 12}[name]
        assert np.abs(collection.values_NF).max() < 100
    assert found.inputs.jet_JF.shape[1] == 15


def test_ak8_finds_the_candidates_of_each_jet(first):
    found = first("cms_pfnano_ak8")
    events = uproot.open(found.path)["Events"].arrays().to_list()
    expected, d0, vertices = [], [], []
    for event in events:
        for number, pt in enumerate(event["FatJet_pt"]):
            if not (
                pt > 200 and abs(event["FatJet_eta"][number]) < 2.4 and event["FatJet_msoftdrop"][number] > 20
            ):
                continue
            links = zip(event["FatJetPFCands_jetIdx"], event["FatJetPFCands_pFCandsIdx"], strict=True)
            particles = [index for jet, index in links if jet == number]
            particles = sorted(particles, key=lambda index, pt=event["PFCands_pt"]: -pt[index])[:100]
            expected.append([event["PFCands_pt"][index] for index in particles])
            tracks = [(event["PFCands_d0"][index], event["PFCands_d0Err"][index]) for index in particles]
            d0.append([np.tanh(10 * value) if error > 0 else 0.0 for value, error in tracks])
            vertices.append(sum(jet == number for jet in event["FatJetSVs_jetIdx"]))
    log_pt = found.particles("log_pt")
    assert ak.num(log_pt).tolist() == [len(particles) for particles in expected]
    np.testing.assert_allclose(ak.flatten(log_pt), np.log(np.concatenate(expected)), rtol=1e-5)
    np.testing.assert_allclose(ak.flatten(found.particles("d0")), np.concatenate(d0), atol=1e-6)
    assert found.inputs.collections["vertices"].lengths_J.tolist() == vertices
