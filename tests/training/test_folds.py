"""K-folds: each jet is scored by networks that never saw it, in the tagger as in the evaluation."""

import json
import shutil

import numpy as np
import pytest
import uproot

import jettagger
from jettagger import configuration
from jettagger.data import splits
from jettagger.errors import JettaggerError
from jettagger.evaluation.runs import open_runs, predict_all
from jettagger.tagger import Tagger
from jettagger.training import checkpoints, run
from jettagger.training.recipe import new_model
from jettagger.training.sides import prepare_sides

EVENTS, COPIES, FEATURES = 500, 4, 8
CONFIG = """\
format: 1
data:
  train: {{all: {folder}/train.root}}
  validation: 0.25
  folds: {{k: 3}}
  prepared: {folder}/prepared
classes:
  Odd: label == 0
  Even: label == 1
inputs:
  jet: {{features: {{{features}}}}}
model: {{architecture: mlp, widths: [96, 96], dropout: 0.1}}
training:
  epochs: 30
  batch_size: 100
  optimiser: {{name: adamw, lr: 1.0e-2, weight_decay: 0}}
  precision: float32
  threads: 1
"""


def jets_of(seed, copies=COPIES):
    """Jets whose labels are drawn: only who remembers a jet knows its label.

    Each jet has copies in other events of the same fold. So a validation jet has twins in the training, and the
    best epoch is one that remembers; a jet of the fold that is held out has none.
    """
    rng = np.random.default_rng(seed)
    event = np.tile(np.arange(EVENTS), copies) + 3 * 1000 * np.repeat(np.arange(copies), EVENTS)
    branches = {f"x{k}": np.tile(rng.normal(size=EVENTS), copies) for k in range(FEATURES)}
    return {"event_number": event, "label": np.tile(rng.integers(0, 2, EVENTS), copies), **branches}


def write(path, branches):
    with uproot.recreate(path) as file:
        file.mktree("tree", {name: values.dtype for name, values in branches.items()})
        file["tree"].extend(branches)


def quiet(line):
    del line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random labels, and three networks that remember them, in `run`."""
    folder = tmp_path_factory.mktemp("folds")
    write(folder / "train.root", jets_of(1))
    features = ", ".join(f"x{k}: x{k}" for k in range(FEATURES))
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder, features=features), encoding="utf-8")
    run.train(recipe_of(folder), folder / "run", say=quiet)
    return folder


def recipe_of(folder, *overrides):
    return configuration.recipe(configuration.load(folder / "config.yaml", list(overrides)))


@pytest.fixture(scope="module")
def jets(folder):
    with uproot.open(folder / "train.root") as file:
        return file["tree"].arrays(library="np")


@pytest.fixture(scope="module")
def tagger(folder):
    return jettagger.load(folder / "run")


def single(folder, fold):
    """The network of one fold alone, from its training's checkpoint: nothing of the bundle is used."""
    recipe = recipe_of(folder)._replace(fold=fold)
    sides = prepare_sides(recipe.data, recipe.baselines, quiet, fold=fold)
    model = new_model(recipe, sides, 0)
    best = folder / "run" / f"fold_{fold}" / "member_0" / checkpoints.BEST
    model.load_state_dict(checkpoints.load_weights(best))
    return Tagger(recipe.data, (model.eval(),), {})


def picked(jets, rows):
    return {name: values[rows] for name, values in jets.items()}


def auc(scores, labels):
    return jettagger.metrics.auc(jettagger.metrics.rank(np.asarray(scores), labels == 1))


def test_memory_does_not_help_out_of_fold(folder, jets, tagger):
    """Random labels: an AUC above 0.5 on jets is the memory of their labels, and of nothing else."""
    [found] = predict_all(open_runs([folder / "run"]), say=quiet)
    assert found.evaluated == "folds"
    assert len(found.labels_N) == EVENTS * COPIES
    out_of_fold = auc(found.decomposition.probabilities_NC[:, 1], found.labels_N).value
    classes = np.bincount(jets["label"][:EVENTS])
    error = np.sqrt((EVENTS + 1) / (12 * classes.prod()))  # of different jets: copies add no information
    assert abs(out_of_fold - 0.5) < 3 * error
    for fold in range(3):
        seen = picked(jets, jets["event_number"] % 3 != fold)
        remembered = auc(tagger.of_fold(fold).predict(seen).Even, seen["label"]).value
        assert remembered > 0.9
    # What predict gives is what was evaluated.
    assert auc(tagger.predict(jets).Even, jets["label"]).value == pytest.approx(out_of_fold, abs=1e-6)


def test_each_jet_has_the_score_of_the_network_that_never_saw_it(folder, jets, tagger):
    scores = tagger.predict(jets)
    [evaluated] = predict_all(open_runs([folder / "run"]), say=quiet)
    for fold in range(3):
        held_out = jets["event_number"] % 3 == fold
        alone = single(folder, fold).predict(picked(jets, held_out))
        assert np.array_equal(scores.Even[held_out], alone.Even)
        assert np.array_equal(evaluated.decomposition.probabilities_NC[held_out, 1], alone.Even)
    distinct = {
        tuple(np.asarray(tagger.of_fold(fold).predict(picked(jets, slice(0, 3))).Even)) for fold in range(3)
    }
    assert len(distinct) == 3


def test_the_event_number_chooses_the_network(folder, jets, tagger):
    moved = jets | {"event_number": jets["event_number"] + 1}
    scores, before = tagger.predict(moved), tagger.predict(jets)
    for fold in range(3):
        now = moved["event_number"] % 3 == fold
        assert np.array_equal(scores.Even[now], single(folder, fold).predict(picked(moved, now)).Even)
    assert np.isclose(np.asarray(scores.Even), np.asarray(before.Even)).mean() < 0.05
    # A jet's score hangs on its own event number alone, wherever it stands.
    order = np.random.default_rng(5).permutation(len(jets["label"]))
    assert np.allclose(tagger.predict(picked(jets, order)).Even, before.Even[order], atol=1e-6)


def test_events_that_have_no_number(folder, jets, tagger, tmp_path):
    nameless = {name: values for name, values in jets.items() if name != "event_number"}
    with pytest.raises(
        JettaggerError, match=r"(?s)data\.folds\.by.*'event_number'.*ask for the mean over folds"
    ):
        tagger.predict(nameless)
    write(tmp_path / "nameless.root", nameless)
    with pytest.raises(JettaggerError, match=r"Tagger\.mean_over_folds"):
        tagger.predict(tmp_path / "nameless.root")
    everyone = tagger.mean_over_folds().predict(nameless)
    networks = [single(folder, fold).predict(nameless).Even for fold in range(3)]
    assert np.allclose(everyone.Even, np.mean(networks, axis=0), atol=1e-12)
    assert np.allclose(everyone["std"].Even, np.std(networks, axis=0, ddof=1), atol=1e-12)
    halves = jets | {"event_number": jets["event_number"] / 2}
    with pytest.raises(
        JettaggerError, match=r"data\.folds\.by: 'event_number' is no whole number for 1000 of 2000"
    ):
        tagger.predict(halves)


def test_a_tagger_of_one_fold_and_of_none(folder, jets, tagger):
    assert tagger.folds == (0, 1, 2)
    with pytest.raises(JettaggerError, match="fold 3: this tagger has folds 0, 1, 2"):
        tagger.of_fold(3)
    with pytest.raises(JettaggerError, match="mean over folds: this tagger has no folds"):
        tagger.of_fold(0).mean_over_folds()
    assert len(tagger.predict(picked(jets, slice(0, 0)))) == 0


def test_mc_dropout_by_fold(folder, jets, tagger):
    few = picked(jets, slice(0, 30))
    scores = tagger.predict(few, mc_dropout=4, seed=3)
    for fold in range(3):
        own = few["event_number"] % 3 == fold
        alone = single(folder, fold).predict(picked(few, own), mc_dropout=4, seed=3)
        assert np.array_equal(scores["std"].Even[own], alone["std"].Even)
        assert (np.asarray(alone["std"].Even) > 0).all()


def test_what_a_run_with_folds_leaves(folder, tagger):
    assert sorted(path.name for path in (folder / "run").iterdir()) == [
        *("config.yaml", "fold_0", "fold_1", "fold_2", "run.json", "tagger")
    ]
    card = tagger.card
    assert card["folds"] == {"k": 3, "by": "event_number"}
    assert [(one["fold"], one["member"]) for one in card["networks"]] == [(0, 0), (1, 0), (2, 0)]
    assert [one["fold"] for one in card["trainings"]] == [0, 1, 2]
    assert len(card["data"]["training_jets"]) == 3
    assert json.loads((folder / "run" / "run.json").read_text())["folds"] == card["folds"]


def test_a_changed_network_is_found_on_loading_though_no_check_jet_is_of_its_fold(folder, tmp_path):
    """Check jets are scored by all networks, too."""
    bundle = shutil.copytree(folder / "run" / "tagger", tmp_path / "bundle")
    with np.load(bundle / "check_jets.npz") as stored:
        arrays = dict(stored)
    arrays["scores_of_all"] = arrays["scores_of_all"] + 0.01
    np.savez(bundle / "check_jets.npz", **arrays)
    card = json.loads((bundle / "card.json").read_text())
    card["sha256"]["check_jets.npz"] = jettagger.files.sha256(bundle / "check_jets.npz")
    (bundle / "card.json").write_text(json.dumps(card))
    with pytest.raises(JettaggerError, match="check jets score differently"):
        jettagger.load(bundle)


def test_neither_weights_nor_best_epoch_see_the_fold(folder):
    """All that a fold's training is given is disjoint from the fold."""
    recipe = recipe_of(folder)
    for fold in range(3):
        sides = prepare_sides(recipe.data, recipe.baselines, quiet, fold=fold)
        fold_J = splits.folds_of(sides.train, recipe.data.data)
        assert fold not in fold_J[sides.train_rows]
        assert fold not in fold_J[sides.validation_rows]
