"""Events with several jets: trained on, scored, and written one row an event."""

import json
import re

import awkward as ak
import h5py
import numpy as np
import pytest
import uproot

import jettagger
from jettagger import configuration
from jettagger.errors import JettaggerError
from jettagger.evaluation import output, scoring
from jettagger.evaluation.output import scores_written
from jettagger.evaluation.score_files import Block
from jettagger.training import run

SCORES = ("QCD", "Top", "std_QCD", "std_Top", "mutual_information", "expected_entropy", "total_entropy")


def write_events(path, events, seed):
    """Events as PFNano has them: jets, candidates and a table that links them; some events have no jets."""
    rng = np.random.default_rng(seed)
    jets = rng.poisson(1.5, events)
    jets[0], jets[-1] = 0, 2
    candidates = rng.poisson(8, events) + 1
    links = np.where(jets > 0, rng.poisson(8, events), 0)
    top = rng.integers(0, 2, jets.sum())
    pt = rng.exponential(10, candidates.sum()) + 1
    branches = {
        "FatJet": {
            "pt": rng.uniform(200, 400, jets.sum()),
            "mass": np.where(top, 170, 60) + rng.normal(0, 30, jets.sum()),
            "top": top,
        },
        "PFCands": {"pt": pt, "eta": rng.normal(0, 1, len(pt))},
        "FatJetPFCands": {
            "jetIdx": (rng.random(links.sum()) * (np.repeat(jets, links) + 1)).astype(np.int32) - 1,
            "pFCandsIdx": (rng.random(links.sum()) * np.repeat(candidates, links)).astype(np.int32),
        },
    }
    counts = {"FatJet": jets, "PFCands": candidates, "FatJetPFCands": links}
    nested = {
        name: ak.zip({field: ak.unflatten(x, counts[name]) for field, x in fields.items()})
        for name, fields in branches.items()
    }
    flat = {
        "event": np.arange(events, dtype=np.int64) + 10**6 * seed,
        "MET_pt": rng.exponential(50e3, events),
    }
    with uproot.recreate(path) as file:
        types = {name: x.dtype for name, x in flat.items()} | {name: x.type for name, x in nested.items()}
        file.mktree("Events", types)
        file["Events"].extend(flat | nested)
    return path


CONFIG = """\
format: 1
data:
  train: {{Mix: {folder}/train.root}}
  test: {{Mix: {folder}/test.root}}
  validation: 0.25
  jets: FatJet_*
  units: {{MET_*: MeV}}
  group_by: event
  selection: FatJet_pt > 210
  prepared: {folder}/prepared
classes: {{QCD: FatJet_top == 0, Top: FatJet_top == 1}}
inputs:
  particles:
    from: PFCands_*
    index: {{jet: FatJetPFCands_jetIdx, particle: FatJetPFCands_pFCandsIdx}}
    sort_by: -PFCands_pt
    length: 16
    features: {{log_pt: log(PFCands_pt), rel: PFCands_pt / FatJet_pt}}
  jet:
    features: {{mass: FatJet_mass, sum: sum(PFCands_pt), met: MET_pt}}
spectators: [FatJet_pt, event]
model: {{architecture: mlp, widths: [8]}}
training: {{epochs: 1, batch_size: 64, threads: 1, precision: float32}}
evaluation: {{bootstrap: 10}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    for seed, name in enumerate(("train", "test")):
        write_events(folder / f"{name}.root", 400, seed + 1)
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder), encoding="utf-8")
    lines = []
    run.train(
        configuration.recipe(configuration.load(folder / "config.yaml", ())), folder / "run", say=lines.append
    )
    (links,) = (line for line in lines if "links" in line)
    assert re.fullmatch(r"  particles: \d+ of the links in inputs\.particles\.index lead nowhere", links)
    assert "  converted from MeV → GeV: MET_pt" in lines
    return folder


@pytest.fixture(scope="module")
def tagger(trained):
    return jettagger.load(trained / "run")


@pytest.fixture(scope="module")
def events(trained):
    with uproot.open(trained / "test.root") as file:
        return file["Events"].arrays()


def test_predict_returns_events_of_jets(tagger, trained, events):
    scores = tagger.predict(trained / "test.root")
    assert ak.num(scores).tolist() == ak.num(events.FatJet_pt).tolist()
    assert ak.array_equal(scores.passes_selection, events.FatJet_pt > 210)
    of_arrays = tagger.predict(events)
    assert ak.array_equal(of_arrays.Top, scores.Top)
    assert ak.array_equal(of_arrays.std.Top, scores.std.Top)
    both = tagger.predict([trained / "test.root", trained / "train.root"])
    assert len(both) == 800
    assert ak.array_equal(both.Top[:400], scores.Top)


def test_each_event_is_scored_by_itself(tagger, events):
    order = np.random.default_rng(0).permutation(len(events))[:50]
    assert ak.all(abs(tagger.predict(events[order]).Top - tagger.predict(events).Top[order]) < 1e-6)
    assert ak.num(tagger.predict(events[:1])).tolist() == [0]
    assert len(tagger.predict(events[:0])) == 0


def test_chunks_join_without_loss(tagger, trained, monkeypatch):
    whole = tagger.predict(trained / "test.root")
    monkeypatch.setattr("jettagger.data.containers.base.CHUNK_BYTES", 4000)
    parts = list(tagger.predict_file(trained / "test.root"))
    assert len(parts) > 3
    assert [part.first for part in parts] == [0, *np.cumsum([part.entries for part in parts])[:-1]]
    assert ak.all(abs(tagger.predict(trained / "test.root").Top - whole.Top) < 1e-6)


@pytest.mark.parametrize("suffix", ["root", "parquet"])
def test_files_with_one_row_an_event(tagger, trained, events, command, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("jettagger.data.containers.base.CHUNK_BYTES", 4000)
    monkeypatch.setattr(output, "ROWS_AT_ONCE", 150)
    path = tmp_path / f"scores.{suffix}"
    jets = ak.num(events.FatJet_pt)
    outcome = command("predict", trained / "run", trained / "test.root", "-o", path)
    assert (outcome.status, outcome.out) == (0, f"{ak.sum(jets)} jets scored: {path}\n")
    if suffix == "root":
        with uproot.open(path) as file:
            rows = file["tree"].arrays()
            assert json.loads(file["attributes"])["files"] == str(trained / "test.root")
    else:
        rows = ak.from_parquet(path)
    assert set(rows.fields) == {"file", "entry", "n_jets", *SCORES, "passes_selection", "FatJet_pt", "event"}
    assert rows.entry.tolist() == list(range(400))
    assert rows.n_jets.tolist() == jets.tolist()
    assert rows.FatJet_pt.tolist() == events.FatJet_pt.tolist()
    assert ak.all(abs(rows.Top - tagger.predict(events).Top) < 1e-6)
    assert ak.all(rows.event == events.event)


def test_hdf5_has_one_row_a_jet(trained, events, command, tmp_path):
    path = tmp_path / "scores.h5"
    assert command("predict", trained / "run", trained / "test.root", "-o", path).status == 0
    with h5py.File(path) as file:
        rows = {name: file[name][...] for name in file}
    counts = ak.num(events.FatJet_pt)
    assert rows["entry"].tolist() == [entry for entry, n in enumerate(counts) for _ in range(n)]
    assert rows["jet_index"].tolist() == [index for n in counts for index in range(n)]
    assert rows["FatJet_pt"].tolist() == ak.flatten(events.FatJet_pt).tolist()


def test_an_event_that_is_lost_is_noticed(trained, tmp_path, monkeypatch):
    predict_file = jettagger.tagger.Tagger.predict_file

    def forgetful(self, path, **options):
        for part in predict_file(self, path, **options):
            columns = {name: x[: part.counts_E[:-1].sum()] for name, x in part.columns.items()}
            yield part._replace(entries=part.entries - 1, counts_E=part.counts_E[:-1], columns=columns)

    monkeypatch.setattr(jettagger.tagger.Tagger, "predict_file", forgetful)
    with pytest.raises(JettaggerError, match=r"400 entries of .*test\.root were to be scored, 399 were"):
        scoring.score_files(trained / "run", [str(trained / "test.root")], tmp_path / "scores.root")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["root", "h5", "parquet"])
def test_files_without_any_jets(tmp_path, suffix):
    path = tmp_path / f"scores.{suffix}"
    none = np.zeros(0)
    with scores_written(path) as writer:
        writer.add(Block({"entry": np.arange(0)}, {"Top": none}, np.zeros(0, int)))
        writer.add(Block({"entry": np.arange(3)}, {"Top": none}, np.zeros(3, int)))
    assert (writer.rows, writer.jets) == (3, 0)
    if suffix == "root":
        with uproot.open(path) as file:
            assert file["tree"]["Top"].array().tolist() == [[], [], []]


def test_a_spectator_is_not_called_as_the_counter(tmp_path):
    text = CONFIG.format(folder=tmp_path).replace("[FatJet_pt, event]", "[FatJet_pt, n_jets]")
    with pytest.raises(JettaggerError, match=r"spectators\.1: 'n_jets' is an output"):
        configuration.loads(text)


def test_blocks_have_the_same_columns(tmp_path):
    def write():
        with scores_written(tmp_path / "scores.h5") as writer:
            writer.add(Block({"a": np.zeros(2)}))
            writer.add(Block({"b": np.zeros(2)}))

    with pytest.raises(ValueError, match=r"columns \['b'\] follow other columns"):
        write()
    assert list(tmp_path.iterdir()) == []
