"""Trainings with folds, test sides and training weights, and what evaluation makes of them."""

import json

import numpy as np
import pytest
import torch

from jettagger import configuration, tagger
from jettagger.baselines import BaselinesSection
from jettagger.batch import Batch, Inputs
from jettagger.data import splits
from jettagger.data.prepared import prepare
from jettagger.errors import JettaggerError
from jettagger.evaluation.runs import open_runs, predict_all
from jettagger.training import assembly, feeding, run
from jettagger.training.sides import extras_of, prepare_sides
from toy_jets import CONFIG

QUICK = ("training.epochs=1", "training.precision=float32", "training.threads=1")
BASELINES = (
    "baselines={cut: {signal: Top, discriminant: -jet_tau3 / jet_tau2}, boosted_trees: {iterations: 3}}"
)
WEIGHTED = "weights={event: gen_weight, training: {flatten: {jet_pt: [500, 560, 700]}, balance: classes%s}}"


def load(folder, *overrides):
    """The toy config; without test samples where there are folds."""
    lines = CONFIG.format(folder=folder).splitlines(keepends=True)
    folds = any("folds" in override for override in overrides)
    text = "".join(line for line in lines if not (folds and line.startswith("  test:")))
    return configuration.loads(text, overrides=[*QUICK, *overrides])


def train(folder, output, *overrides, **arguments):
    said: list[str] = []
    run.train(configuration.recipe(load(folder, *overrides)), output, say=said.append, **arguments)
    return said


def sides(config, fold=None):
    """The dataset of data.train and its split, as trainings make them."""
    extras = extras_of(config, config.baselines)
    prepared = prepare(config, config.data.train, role="data.train", extras=extras)
    return prepared, splits.split(prepared, config.data, fold)


@pytest.mark.parametrize("test", ["0.3", "event_number % 5 == 0"])
def test_the_test_side_is_what_evaluation_scores(toy_folder, tmp_path, test):
    train(toy_folder, tmp_path / "run", f"data.test={test}", BASELINES)
    prepared, found = sides(load(toy_folder, f"data.test={test}", BASELINES))
    predictions = predict_all(open_runs([tmp_path / "run"]), say=lambda line: None)
    assert [one.name for one in predictions] == ["run", "cut", "boosted trees"]
    for one in predictions:
        assert np.array_equal(one.labels_N, prepared.labels_J[found.test])
        assert np.array_equal(one.spectators["jet_pt"], prepared.spectators["jet_pt"][found.test])
    card = json.loads((tmp_path / "run" / "tagger" / "card.json").read_text())
    assert card["data"]["training_jets"] == len(found.train)
    assert card["data"]["validation_jets"] == len(found.validation)
    assert len(found.test) + len(found.train) + len(found.validation) == len(prepared)
    scored = tagger.load(tmp_path / "run").predict([toy_folder / f"{n}_train.root" for n in ("QCD", "Top")])
    expected = scored.Top[scored.passes_selection][found.test]
    probabilities = predictions[0].decomposition.probabilities_NC[:, 1]
    assert probabilities == pytest.approx(np.asarray(expected), abs=1e-6)


def test_files_that_were_trained_on_are_still_refused(toy_folder, tmp_path):
    train(toy_folder, tmp_path / "run", "data.test=0.3")
    with pytest.raises(JettaggerError, match=r"QCD_train\.root: run was trained or validated on this file"):
        predict_all(open_runs([tmp_path / "run"]), [f"{toy_folder}/*_train.root"])


def test_what_training_weights_leave_out_is_said(toy_folder, tmp_path):
    said = train(toy_folder, tmp_path / "run", WEIGHTED.replace("700", "650") % "")
    assert any("weights.training.flatten: " in line and "lie outside the edges" in line for line in said)


@pytest.mark.parametrize("method", ["loss", "sampling"])
def test_training_weights_change_the_training_and_no_metric(toy_folder, tmp_path, method):
    event = "weights={event: gen_weight}"
    train(toy_folder, tmp_path / "plain", event)
    train(toy_folder, tmp_path / "weighted", WEIGHTED % f", method: {method}")
    weights = [
        (tmp_path / name / "tagger" / "weights.safetensors").read_bytes() for name in ("plain", "weighted")
    ]
    assert weights[0] != weights[1]
    plain, weighted = predict_all(
        open_runs([tmp_path / "plain", tmp_path / "weighted"]), say=lambda line: None
    )
    # All that figures are made of but the scores: event weights, no training weights.
    assert np.array_equal(plain.weights_N, weighted.weights_N)
    assert np.array_equal(plain.labels_N, weighted.labels_N)
    files = [toy_folder / f"{name}_test.root" for name in ("QCD", "Top")]
    config = load(toy_folder, event)
    test = prepare(config, config.data.test, role="data.test")
    assert len(files) == len(test.records)
    assert np.array_equal(weighted.weights_N, test.weights_J)
    _, validation = _batches(toy_folder, WEIGHTED % f", method: {method}")
    for batch in validation.epoch(0):
        rows = batch.index_B.numpy()
        assert np.array_equal(batch.weights_B.numpy(), validation.prepared.weights_J[rows].astype(np.float32))


def test_a_class_that_weighs_nothing_costs_no_tagger(toy_folder, tmp_path):
    event = "where((label_QCD == 1) & (jet_sdmass > 20), -0.5, 1)"
    said = train(toy_folder, tmp_path / "run", f"weights.event={event}")
    card = json.loads((tmp_path / "run" / "tagger" / "card.json").read_text())
    assert set(card["validation"]) == {"nll"}
    assert card["working_points"] == {}
    assert card["problems"] == []
    assert card["remarks"][1] == (
        "no auc Top against the rest and no working points: the event weights of the validation jets on one side do not"
        " add up to more than 0"
    )
    assert card["remarks"][1] in said


def test_an_auc_beyond_its_range_is_said(toy_folder, tmp_path):
    event = "where((label_QCD == 1) & (jet_sdmass > 85), -1, 1)"
    said = train(toy_folder, tmp_path / "run", f"weights.event={event}", "training.epochs=8")
    card = json.loads((tmp_path / "run" / "tagger" / "card.json").read_text())
    value = card["validation"]["auc Top against the rest"]
    assert value > 1
    best = card["trainings"][0]["best_epoch"]
    lines = (tmp_path / "run" / "member_0" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[best - 1])["auc"] == pytest.approx(value, abs=1e-3)
    assert any(
        f"auc Top against the rest of the validation jets is {value:.6g}, outside 0 to 1" in x for x in said
    )
    assert any("Outside 0 to 1 on the validation jets: the AUC in " in x for x in said)


def _batches(folder, *overrides):
    recipe = configuration.recipe(load(folder, *overrides))
    found = prepare_sides(recipe.data, BaselinesSection(), lambda line: None)
    weights = assembly.training_weights(recipe, found)
    return assembly.batches(recipe, found, weights, 0, found.train.spec)


def test_the_loss_or_the_draws_take_the_training_weights(toy_folder):
    by_loss, _ = _batches(toy_folder, WEIGHTED % ", method: loss")
    by_draws, _ = _batches(toy_folder, WEIGHTED % ", method: sampling")
    assert by_loss.jets == by_draws.jets
    sums = np.zeros((2, 2))
    for number, batches in enumerate((by_loss, by_draws)):
        for batch in batches.epoch(0):
            sums[number] += np.bincount(batch.labels_B, batch.weights_B, minlength=2)
    assert sums[0, 0] == pytest.approx(sums[0, 1], rel=1e-5)
    assert sums[1, 0] == pytest.approx(sums[1, 1], rel=0.05)
    event = by_draws.prepared.weights_J.astype(np.float32)
    for batch in by_draws.epoch(0):
        assert np.array_equal(batch.weights_B.numpy(), event[batch.index_B.numpy()])


def test_a_training_by_draws_gives_the_same_weights_again(toy_folder, tmp_path):
    overrides = [WEIGHTED % ", method: sampling", "training.epochs=2"]
    train(toy_folder, tmp_path / "whole", *overrides)
    train(toy_folder, tmp_path / "again", *overrides)
    assert (tmp_path / "whole/tagger/weights.safetensors").read_bytes() == (
        tmp_path / "again/tagger/weights.safetensors"
    ).read_bytes()


def batches(number):
    for n in range(number):
        yield Batch(
            Inputs(torch.full((2, 1), float(n)), {}), torch.zeros(2).long(), torch.ones(2), torch.arange(2)
        )


def test_batches_for_a_cpu_are_passed_on():
    given = batches(3)
    with feeding.fed(given, torch.device("cpu")) as found:
        assert found is given


def test_batches_for_cuda_are_pinned_ahead(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: pinned.append(x) or x)
    with feeding.fed(batches(5), torch.device("cuda")) as found:
        values = [float(batch.inputs.jet_BF[0, 0]) for batch in found]
    assert values == [0, 1, 2, 3, 4]
    assert len(pinned) == 5 * 4


def test_jets_stay_where_they_are_on_a_cpu(toy_folder):
    train_batches, _ = _batches(toy_folder)
    assert feeding.kept_on(train_batches, torch.device("cpu")) is train_batches
