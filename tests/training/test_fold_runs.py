"""Runs with folds as a user, or an array of jobs, makes them: pieces, merging, failures, reports."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import uproot

import jettagger
from jettagger import configuration
from jettagger import tagger as tagger_module
from jettagger.baselines import jet_features, load_trees
from jettagger.data import splits
from jettagger.data.prepared import prepare
from jettagger.errors import JettaggerError
from jettagger.evaluation.comparison import compare
from jettagger.evaluation.document import to_json
from jettagger.evaluation.held_out import parts_of
from jettagger.evaluation.records import row_names
from jettagger.evaluation.runs import open_runs, predict_all
from jettagger.evaluation.schema import EvaluationSection
from jettagger.tagger import Tagger
from jettagger.training import checkpoints, outcome, run
from jettagger.training.outcome import MemberFailure
from jettagger.training.sides import extras_of

OVERRIDES = (
    *("data.folds={k: 2}", "ensemble.members=2", "training.epochs=1", "training.precision=float32"),
    *("training.threads=1", "evaluation.bootstrap=0", "baselines={boosted_trees: {iterations: 3}}"),
)
OPTIONS = [word for override in OVERRIDES for word in ("--set", override)]
PIECES = [(fold, member) for fold in range(2) for member in range(2)]


def recipe_of(folder, *overrides):
    return configuration.recipe(configuration.load(folder / "config.yaml", [*OVERRIDES, *overrides]))


@pytest.fixture(scope="module")
def fold_run(toy_folder, tmp_path_factory):
    """Two folds of two members, trained by one command; not to be changed."""
    output = tmp_path_factory.mktemp("runs") / "toy"
    run.train(recipe_of(toy_folder), output, say=lambda line: None)
    return output


@pytest.fixture
def copy(fold_run, tmp_path):
    """A copy of the run without its tagger, as an array of jobs leaves it."""
    output = shutil.copytree(fold_run, tmp_path / "toy")
    shutil.rmtree(output / "tagger")
    (output / "run.json").unlink()
    return output


def weights(output):
    return (output / "tagger" / "weights.safetensors").read_bytes()


def test_pieces_trained_one_by_one_are_the_run(toy_folder, fold_run, tmp_path, command, monkeypatch):
    """As `jettagger submit` starts them, in any order; the last one to end writes the tagger."""
    monkeypatch.chdir(tmp_path)
    start = ["train", toy_folder / "config.yaml", *OPTIONS, "--output", "run"]
    for fold, member in reversed(PIECES):
        done = command(*start, "--fold", fold, "--member", member, "--resume")
        assert done.status == 0, done.error
        waiting = "the tagger waits for fold 0 (members 0, 1), fold 1 (member 0)"
        assert (waiting in done.out) == ((fold, member) == (1, 1))
    assert weights(tmp_path / "run") == weights(fold_run)
    assert (tmp_path / "run" / "fold_1" / "baselines" / "boosted_trees.npz").is_file()
    shutil.rmtree("run/tagger")
    done = command(*start, "--merge")
    assert done.status == 0, done.error
    assert weights(tmp_path / "run") == weights(fold_run)


def test_members_of_a_fold_give_the_spread(toy_folder, fold_run):
    tagger = jettagger.load(fold_run)
    assert [one.name for one in tagger.networks] == [f"fold_{f}/member_{m}" for f, m in PIECES]
    assert tagger.card["members"] == 2
    file = toy_folder / "Top_test.root"
    scores = tagger.predict(file)
    with uproot.open(file) as opened:
        event = opened["tree"]["event_number"].array(library="np")
    for fold in range(2):
        both = [
            Tagger(tagger.config, (model,), {}).predict(file).Top
            for model, one in zip(tagger.members, tagger.networks, strict=True)
            if one.fold == fold
        ]
        own = event % 2 == fold
        assert np.allclose(scores.Top[own], np.mean(both, axis=0)[own], atol=1e-6)
        assert np.allclose(scores["std"].Top[own], np.std(both, axis=0, ddof=1)[own], atol=1e-6)


def test_the_report_says_what_was_evaluated(toy_folder, fold_run):
    runs = open_runs([fold_run])
    assert parts_of(runs) == ["folds", "test"]
    assert parts_of(runs, ["some.root"]) == ["test"]
    predictions = predict_all(runs, mc_dropout=2, say=lambda line: None)
    report = to_json(compare(predictions, EvaluationSection(bootstrap=0)))
    recipe = recipe_of(toy_folder)
    extras = extras_of(recipe.data, recipe.baselines)
    prepared = prepare(recipe.data, recipe.data.data.train, role="data.train", extras=extras)
    found = {one["name"]: one for one in report["runs"]}
    assert list(found) == ["toy", "toy (ensemble of 2)", "toy (MC dropout)", "boosted trees"]
    assert {one["evaluated"] for one in found.values()} == {"folds"}
    assert {one["n_jets"] for one in found.values()} == {len(prepared)}
    assert any("each scored by networks of the fold that held it out" in note for note in report["notes"])
    test = predict_all(runs, part="test", say=lambda line: None)
    assert {one.evaluated for one in test} == {"test"}
    # The trees of a fold have not seen it either.
    fold_J = splits.folds_of(prepared, recipe.data.data)
    for fold in range(2):
        rows = np.flatnonzero(fold_J == fold)
        own = load_trees(fold_run / f"fold_{fold}" / "baselines" / "boosted_trees.npz")
        expected = own.probabilities(jet_features(prepared, rows))
        assert np.array_equal(predictions[3].decomposition.probabilities_NC[rows], expected)


def test_new_files_are_scored_by_their_event_numbers(toy_folder, fold_run, tmp_path, command):
    data = [f"{name}={toy_folder}/{name}_test.root" for name in ("QCD", "Top")]
    by_event = predict_all(open_runs([fold_run]), data, say=lambda line: None)
    assert {one.evaluated for one in by_event} == {"data"}
    mean = predict_all(open_runs([fold_run], mean_over_folds=True), data, say=lambda line: None)
    assert "toy (ensemble of 4)" in [one.name for one in mean]
    # Networks of the other fold have seen these jets: their mean over folds would be no fair score.
    trained = [text.replace("_test", "_train") for text in data]
    options = [word for text in trained for word in ("--data", text)]
    refused = command("evaluate", fold_run, "-o", tmp_path / "no", *options, "--mean-over-folds")
    assert refused.status == 2
    assert "toy was trained or validated on this file" in refused.error
    scored = predict_all(open_runs([fold_run]), trained, say=lambda line: None)
    held_out = predict_all(open_runs([fold_run]), say=lambda line: None)
    assert np.array_equal(
        scored[1].decomposition.probabilities_NC, held_out[1].decomposition.probabilities_NC
    )
    scores = tmp_path / "scores.h5"
    done = command("predict", fold_run, toy_folder / "Top_test.root", "-o", scores, "--mean-over-folds")
    assert done.status == 0, done.error


@pytest.mark.slow
def test_both_reports_are_written(fold_run, tmp_path, command):
    done = command("evaluate", fold_run, "--output", tmp_path / "report")
    assert done.status == 0, done.error
    for folder, kind in (("report", "folds"), ("report/test", "test")):
        report = json.loads((tmp_path / folder / "report.json").read_text())
        assert {one["evaluated"] for one in report["runs"]} == {kind}
        assert (tmp_path / folder / "predictions.root").is_file()
    assert f"report on data.test: {tmp_path}/report/test/report.html" in done.out


def test_one_fold_is_trained_alone(toy_folder, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("train", toy_folder / "config.yaml", "--fold", 1, *OPTIONS)
    assert done.status == 0, done.error
    assert "the tagger waits for fold 0 (members 0, 1)" in done.out
    assert sorted(path.name for path in (tmp_path / "runs" / "config").iterdir()) == ["config.yaml", "fold_1"]
    failed = command("train", toy_folder / "config.yaml", *OPTIONS, "--merge")
    assert failed.status == 2
    assert "fold 0 of 2 without a network: a tagger needs one for each fold" in failed.error
    assert "not trained yet, or not to the end: fold 0 (members 0, 1)" in failed.error
    failed = command("train", toy_folder / "config.yaml", "--fold", 1)
    assert (failed.status, failed.error) == (2, "jettagger: error: --fold 1: the config has no data.folds\n")
    failed = command("train", toy_folder / "config.yaml", "--fold", 7, *OPTIONS)
    assert "--fold 7: data.folds.k is 2; folds are counted from 0" in failed.error


def test_a_failed_member_is_named_and_the_rest_is_used(toy_folder, copy, fold_run, command):
    shutil.rmtree(copy / "fold_1" / "member_0")
    outcome.write_failure(copy / "fold_1" / "member_0", MemberFailure(0, 1, "the loss is NaN", 7))
    start = ["train", toy_folder / "config.yaml", *OPTIONS, "--output", copy]
    done = command(*start, "--merge")
    assert done.status == 0, done.error
    assert "fold 1, member 0 failed after step 7: the loss is NaN" in done.out
    tagger = jettagger.load(copy)
    assert [one.name for one in tagger.networks] == ["fold_0/member_0", "fold_0/member_1", "fold_1/member_1"]
    assert tagger.card["failed"] == [{"member": 0, "fold": 1, "reason": "the loss is NaN", "step": 7}]
    assert json.loads((copy / "run.json").read_text())["failed"] == tagger.card["failed"]
    whole = jettagger.load(fold_run)
    assert np.array_equal(
        tagger.of_fold(1).predict(toy_folder / "Top_test.root").Top,
        Tagger(whole.config, whole.members[3:], {}).predict(toy_folder / "Top_test.root").Top,
    )
    predictions = predict_all(open_runs([copy]), say=lambda line: None)[0]
    assert predictions.trainings == ["fold 0, member 0", "fold 0, member 1", "fold 1, member 1"]
    notes = predictions.notes
    assert any("fold 1, member 0 failed and is not part of it: the loss is NaN" in note for note in notes)


def test_rows_of_scores_are_named_by_their_networks(toy_folder, fold_run):
    [whole] = open_runs([fold_run])
    assert row_names(whole, 2) == ["member 0 of the folds", "member 1 of the folds"]
    [first, *_] = predict_all([whole], say=lambda line: None)
    trained = whole.tagger.card["trainings"]
    assert first.trainings == ["fold 0, member 0", "fold 1, member 0"]
    assert first.training_seconds == pytest.approx(trained[0]["seconds"] + trained[2]["seconds"])
    lost = whole.tagger._with([0, 1, 3], [whole.tagger.networks[k] for k in (0, 1, 3)])
    lost = replace(lost, card={**lost.card, "networks": [one._asdict() for one in lost.networks]})
    names = row_names(whole._replace(tagger=lost), 1)
    assert names == ["network 0 of the folds (fold 0, member 0; fold 1, member 1)"]
    averaged = open_runs([fold_run], mean_over_folds=True)
    data = [f"Top={toy_folder}/Top_test.root", f"QCD={toy_folder}/QCD_test.root"]
    alone, together, *_ = predict_all(averaged, data, say=lambda line: None)
    assert together.member_names == together.trainings == [f"fold {f}, member {m}" for f, m in PIECES]
    assert (alone.member_names, alone.trainings) == (["fold 0, member 0"], ["fold 0, member 0"])
    assert alone.history == [together.history[0]]


def test_members_that_are_missing_are_named(toy_folder, copy):
    shutil.rmtree(copy / "fold_0" / "member_1")
    said: list[str] = []
    run.merge(recipe_of(toy_folder), copy, say=said.append)
    assert "not trained yet, or not to the end: fold 0 (member 1)" in said
    assert jettagger.load(copy).card["missing"] == [{"fold": 0, "member": 1}]


def test_a_member_that_learned_nothing_is_named(toy_folder, copy):
    folder = copy / "fold_1" / "member_1"
    weights_of = checkpoints.load_weights(folder / checkpoints.BEST)
    zeros = {name: 0 * x if name.endswith(("weight", "bias")) else x for name, x in weights_of.items()}
    checkpoints.save_best(folder, 1, zeros)
    said: list[str] = []
    run.merge(recipe_of(toy_folder), copy, say=said.append)
    problem = "fold 1, member 1 looks failed on the validation jets: constant; it is part of the tagger"
    assert problem in said
    assert problem in jettagger.load(copy).card["problems"]
    assert f"toy: {problem}" in predict_all(open_runs([copy]), say=lambda line: None)[0].notes
    checkpoints.save_best(folder, 1, {name: float("nan") * x for name, x in weights_of.items()})
    with pytest.raises(
        JettaggerError, match="fold 1, member 1: its scores of the validation jets are not finite"
    ):
        run.merge(recipe_of(toy_folder), copy, say=said.append)


def test_merging_nothing(toy_folder, copy, tmp_path):
    with pytest.raises(JettaggerError, match=r"--merge: there is no run .*nowhere"):
        run.merge(recipe_of(toy_folder), tmp_path / "nowhere")
    for fold, member in PIECES:
        shutil.rmtree(copy / f"fold_{fold}" / f"member_{member}")
    outcome.write_failure(copy / "fold_0" / "member_0", MemberFailure(0, 0, "no memory"))
    message = (
        "no training of this run has ended, so there is no tagger: fold 0, member 0 failed: no memory; not"
    )
    with pytest.raises(JettaggerError, match=message):
        run.merge(recipe_of(toy_folder), copy)
    assert not (copy / "tagger").exists()


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (["--resume"], "--resume"),
        (["--overwrite"], "--overwrite"),
        (["--member", 0], "--member"),
        (["--fold", 0], "--fold"),
    ],
)
def test_merging_says_no_to_options_of_a_training(toy_folder, command, option, named):
    failed = command("train", toy_folder / "config.yaml", *OPTIONS, "--merge", *option)
    assert failed.status == 2
    assert f"--merge trains nothing and bundles all that has ended: leave {named} out" in failed.error


def test_members_of_another_config_are_not_merged(toy_folder, copy):
    with pytest.raises(JettaggerError, match=r"belongs to another config \(training\.seed: 1 → 2\)"):
        run.merge(recipe_of(toy_folder, "training.seed=2"), copy)
    with pytest.raises(JettaggerError, match=r"belongs to another config \(data\.folds\.k: 2 → 3"):
        run.train(recipe_of(toy_folder, "data.folds={k: 3}"), copy, resume=True, say=lambda line: None)


def test_runs_with_folds_and_without_are_not_mixed(toy_folder, copy, run_copy):
    with pytest.raises(JettaggerError, match=r"holds a run with folds, and the config has no data\.folds"):
        run.train(recipe_of(toy_folder, "data.folds=null"), copy, resume=True)
    with pytest.raises(JettaggerError, match=r"holds a run without folds, and the config has data\.folds"):
        run.train(recipe_of(toy_folder), run_copy, resume=True)


def test_overwriting_a_fold_and_all(toy_folder, copy, fold_run):
    before = (copy / "fold_0" / "member_0" / "best.pt").read_bytes()
    run.train(recipe_of(toy_folder), copy, fold=1, overwrite=True, say=lambda line: None)
    assert (copy / "fold_0" / "member_0" / "best.pt").read_bytes() == before
    assert weights(copy) == weights(fold_run)


@pytest.mark.slow
def test_processes_that_end_together_leave_one_whole_tagger(toy_folder, copy, fold_run):
    """Array jobs: each bundles what it finds, one after the other, and the last one finds everything."""
    command = [sys.executable, "-m", "jettagger", "train", str(toy_folder / "config.yaml"), *OPTIONS]
    started = [
        subprocess.Popen(
            [*command, "-o", str(copy), "--merge"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for process in started:
        out, error = process.communicate()
        assert process.returncode == 0, (out, error)
    assert weights(copy) == weights(fold_run)
    card = json.loads((copy / "tagger" / "card.json").read_text())
    assert json.loads((copy / "run.json").read_text()).items() >= card.items()
    assert not list(copy.glob(".*"))


def test_the_median_stands_beside_the_mean_where_a_member_looks_failed(toy_folder, tmp_path):
    overrides = ["data.folds=null", "ensemble.members=3", "training.epochs=3", "baselines.boosted_trees=null"]
    recipe, output = recipe_of(toy_folder, *overrides), tmp_path / "three"
    run.train(recipe, output, say=lambda line: None)
    sound = predict_all(open_runs([output]), say=lambda line: None)
    assert [one.name for one in sound] == ["three", "three (ensemble of 3)"]
    folder = output / "member_1"
    weights_of = checkpoints.load_weights(folder / checkpoints.BEST)
    zeros = {name: 0 * x if name.endswith(("weight", "bias")) else x for name, x in weights_of.items()}
    checkpoints.save_best(folder, 1, zeros)
    run.merge(recipe, output, say=lambda line: None)
    found = predict_all(open_runs([output]), say=lambda line: None)
    assert [one.name for one in found] == ["three", "three (ensemble of 3)", "three (median of 3)"]
    expected = np.median(found[1].members_MNC[..., 1].astype(np.float64), axis=0)
    assert np.allclose(found[2].decomposition.probabilities_NC[:, 1], expected, atol=1e-6)


def as_format_1(bundle, **more):
    """The bundle as version 1 of the format had it: no networks are listed."""
    card = json.loads((bundle / "card.json").read_text())
    del card["networks"]
    (bundle / "card.json").write_text(json.dumps(card | {"format": 1} | more))


def test_bundles_of_format_1_are_read(toy_folder, run_copy, trained_run):
    as_format_1(run_copy / "tagger")
    file = toy_folder / "Top_test.root"
    expected = jettagger.load(trained_run).predict(file)
    assert np.array_equal(jettagger.load(run_copy).predict(file).Top, expected.Top)


def test_a_bundle_of_one_fold_as_format_1_had_it_is_judged_on_that_fold(toy_folder, fold_run, tmp_path):
    whole = jettagger.load(fold_run)
    lines = (toy_folder / "config.yaml").read_text().splitlines(keepends=True)
    without_test = "".join(line for line in lines if not line.startswith("  test:"))
    config = configuration.recipe(configuration.loads(without_test, overrides=list(OVERRIDES)))
    with uproot.open(toy_folder / "Top_test.root") as file:
        arrays = file["tree"].arrays(entry_stop=16)
    check_jets = {name: arrays[name] for name in arrays.fields}
    alone = whole.of_fold(1)
    tagger_module.save(
        tmp_path / "old" / "tagger", tagger=alone, document=config.document, check_jets=check_jets
    )
    as_format_1(tmp_path / "old" / "tagger", fold={"k": 2, "by": "event_number", "fold": 1})
    found = predict_all(open_runs([tmp_path / "old"]), say=lambda line: None)[1]
    assert found.evaluated == "fold"
    every = predict_all(open_runs([fold_run]), say=lambda line: None)[1]
    prepared = prepare(
        config.data,
        config.data.data.train,
        role="data.train",
        extras=extras_of(config.data, config.baselines),
    )
    held_out = splits.folds_of(prepared, config.data.data) == 1
    assert np.array_equal(found.labels_N, every.labels_N[held_out])
    assert np.array_equal(
        found.decomposition.probabilities_NC, every.decomposition.probabilities_NC[held_out]
    )
