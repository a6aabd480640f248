"""Runs score the test jets: one prediction each, the same as the tagger's, and only of jets not trained on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import uproot

import jettagger
from jettagger import baselines, configuration
from jettagger.data.prepared import prepare
from jettagger.data.sample_schema import DataSection
from jettagger.errors import JettaggerError
from jettagger.evaluation.comparison import compare
from jettagger.evaluation.held_out import samples_from, weighted
from jettagger.evaluation.runs import open_runs, predict_all
from jettagger.training import run as training_run
from toy_jets import ENSEMBLE


@pytest.fixture(scope="module")
def found(trained_run):
    said: list[str] = []
    return predict_all(open_runs([trained_run]), mc_dropout=4, say=said.append)


@pytest.fixture(scope="module")
def other_seed(toy_folder, tmp_path_factory):
    """A run that differs from `trained_run` in its seed only."""
    output = tmp_path_factory.mktemp("runs") / "other"
    config = configuration.load(toy_folder / "config.yaml", [*ENSEMBLE, "training.seed=2"])
    training_run.train(configuration.recipe(config), output, say=lambda line: None)
    return output


def test_network_members_mc_dropout_and_baselines(found, trained_run):
    assert [one.name for one in found] == [
        *("toy", "toy (ensemble of 2)", "toy (MC dropout)", "cut", "boosted trees")
    ]
    single, ensemble, dropout, cut, trees = found
    assert (single.decomposition.samples, ensemble.decomposition.samples) == (1, 2)
    assert dropout.decomposition.samples == 4
    assert len(single.history) == 1
    assert len(ensemble.history) == 2
    assert [epoch["epoch"] for epoch in ensemble.history[1]] == [1, 2]
    assert np.array_equal(single.members_MNC, ensemble.members_MNC[:1])
    seconds = [one["seconds"] for one in jettagger.load(trained_run).card["trainings"]]
    assert ensemble.training_seconds == pytest.approx(sum(seconds))
    assert single.training_seconds == dropout.training_seconds == pytest.approx(seconds[0])
    assert cut.decomposition is None
    assert cut.scores_N is not None
    assert trees.decomposition.samples == 1
    assert (dropout.history, cut.history, trees.seed, cut.seed) == ((), (), 1, None)
    for one in found:
        assert np.array_equal(one.labels_N, single.labels_N)
        assert set(one.spectators) == {"jet_pt", "jet_sdmass"}


def test_scores_are_those_of_the_tagger(found, trained_run, toy_folder):
    scores = jettagger.load(trained_run).predict(
        [toy_folder / f"{name}_test.root" for name in ("QCD", "Top")]
    )
    scores = scores[scores.passes_selection]
    assert np.allclose(found[1].decomposition.probabilities_NC[:, 1], scores.Top, atol=1e-6)
    assert np.allclose(found[1].decomposition.mutual_information_N, scores.mutual_information, atol=1e-6)


def test_baselines_are_those_of_the_run(found, trained_run):
    cut, trees = found[3:]
    stored = baselines.load_trees(trained_run / "baselines" / "boosted_trees.npz")
    config = jettagger.load(trained_run).config
    prepared = prepare(config, config.data.test, role="data.test")
    expected = stored.probabilities(baselines.jet_features(prepared, np.arange(len(prepared))))
    assert np.array_equal(trees.decomposition.probabilities_NC, expected)
    inside = cut.spectators["jet_sdmass"] > 100
    assert cut.scores_N[inside].min() > cut.scores_N[~inside].max()


def test_runs_that_differ_in_their_seed_are_a_group(trained_run, other_seed):
    runs = open_runs([trained_run, other_seed])
    found = predict_all(runs, say=lambda line: None)
    names = [one.name for one in found]
    assert names.count("cut") == 1, "equal baselines are given once"
    groups = {one.name: one.group for one in found}
    assert groups["toy"] == groups["other"] == "toy"
    ensembles = {groups[name] for name in ("toy (ensemble of 2)", "other (ensemble of 2)")}
    assert ensembles == {"toy (ensemble of 2)"}, "ensembles are no seeds of a single network"
    assert groups["cut"] is None
    seeds = {one.name: one.seed for one in found}
    assert (seeds["toy"], seeds["other"]) == (1, 2)


def test_baselines_that_differ_keep_apart(trained_run, run_copy):
    path = run_copy / "baselines" / "boosted_trees.npz"
    trees = baselines.load_trees(path)
    trees._replace(value=2 * trees.value).save(path)
    found = predict_all(open_runs([trained_run, run_copy]), say=lambda line: None)
    names = [one.name for one in found]
    assert [name for name in names if "trees" in name] == [
        "boosted trees",
        f"boosted trees of {run_copy.parent.name}/toy",
    ]
    assert len(compare(found).results) == len(set(names)) == len(names)


def test_names_are_unique(run_copy, trained_run):
    runs = open_runs([trained_run, run_copy])
    assert [run.name for run in runs] == [f"{path.parent.name}/toy" for path in (trained_run, run_copy)]


def test_runs_whose_folders_are_called_alike_too_are_called_by_their_path(trained_run, tmp_path, monkeypatch):
    for name in ("a", "b"):
        shutil.copytree(trained_run, tmp_path / name / "runs" / "toy")
    monkeypatch.chdir(tmp_path / "a" / "runs")
    paths = [Path("toy"), tmp_path / "b" / "runs" / "toy"]
    assert [run.name for run in open_runs(paths)] == [str(path) for path in paths]
    assert open_runs([paths[0], trained_run])[0].name == "runs/toy"


def test_a_bundle_alone_can_be_judged(trained_run, tmp_path):
    bundle = shutil.copytree(trained_run / "tagger", tmp_path / "bundle")
    found = predict_all(open_runs([bundle]), say=lambda line: None)
    assert [one.name for one in found] == ["toy", "toy (ensemble of 2)", "cut"]
    assert found[1].history == ()


def test_a_run_given_twice_is_refused(trained_run):
    with pytest.raises(JettaggerError, match="is given twice"):
        open_runs([trained_run, trained_run / "." / "tagger" / ".."])


def test_a_copy_of_a_training_file_is_recognised(trained_run, toy_folder, tmp_path):
    copied = shutil.copy(toy_folder / "QCD_train.root", tmp_path / "renamed.root")
    data = [str(copied), str(toy_folder / "Top_test.root")]
    with pytest.raises(JettaggerError, match=r"renamed\.root: toy was trained or validated on this file"):
        predict_all(open_runs([trained_run]), data, say=lambda line: None)


def test_other_files_in_place_of_the_test_samples(found, trained_run, toy_folder):
    data = [f"QCD={toy_folder}/QCD_test.root", f"Top={toy_folder}/Top_test.root"]
    again = predict_all(open_runs([trained_run]), data, say=lambda line: None)
    assert np.array_equal(again[0].decomposition.probabilities_NC, found[0].decomposition.probabilities_NC)


def test_no_dropout_is_said(toy_folder, tmp_path):
    config = configuration.load(toy_folder / "config.yaml", ["model.dropout=0", "training.epochs=1"])
    training_run.train(configuration.recipe(config), tmp_path / "dry", say=lambda line: None)
    said: list[str] = []
    found = predict_all(open_runs([tmp_path / "dry"]), mc_dropout=5, say=said.append)
    assert [one.name for one in found] == ["dry"]
    assert "dry: no MC dropout, since its network has no dropout" in said


def test_samples_of_the_command_line():
    samples = samples_from(["QCD=a*.root", "b.root", "QCD=c.root", "d.root"])
    assert {name: section.files for name, section in samples.items()} == {
        "QCD": ["a*.root", "c.root"],
        "data": ["b.root", "d.root"],
    }


def test_files_of_the_command_line_keep_the_weight_of_their_sample():
    section = DataSection.model_validate(
        {"train": {"QCD": {"files": "a.root", "weight": 2.0}, "Top": "b.root"}, "test": {"Top": "c.root"}}
    )
    found = weighted(samples_from(["QCD=x.root", "Top=y.root", "z.root"]), section)
    assert {name: sample.weight for name, sample in found.items()} == {"QCD": 2.0, "Top": 1.0, "data": 1.0}


def test_the_command_writes_report_figures_and_predictions(command, run_copy, tmp_path):
    outcome = command("evaluate", run_copy, "--mc-dropout", 2)
    assert (outcome.status, outcome.error) == (0, "")
    report = run_copy / "report"
    assert outcome.out.splitlines()[-1] == f"report: {report / 'report.html'}"
    document = json.loads((report / "report.json").read_text())
    assert [one["name"] for one in document["runs"]] == [
        *("toy", "toy (ensemble of 2)", "toy (MC dropout)", "cut", "boosted trees")
    ]
    for one in document["runs"][:3]:
        assert 0.5 < one["auc"] < 1
        assert one["auc_error"] > 0
        assert one["nll"] < 0.7
    with uproot.open(report / "predictions.root") as file:
        rows = file["tree"].arrays(library="np")
    assert len(rows["label"]) == document["runs"][0]["n_jets"]
    assert {"weight", "jet_pt", "toy_Top", "toy_std_Top", "cut_score", "boosted_trees_Top"} <= set(rows)
    assert {path.suffix for path in (report / "figures").iterdir()} == {".pdf", ".png"}
    assert not [path.name for path in Path(run_copy).rglob(".*")]
