"""Trees as arrays against scikit-learn, and what a cut makes of odd values."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from jettagger import baselines, configuration
from jettagger.baselines import BaselinesSection, BoostedTreesSection, CutSection
from jettagger.batch import Feature, InputSpec
from jettagger.data.rows import RawInputs
from jettagger.errors import JettaggerError
from toy_jets import CONFIG

SECTION = BoostedTreesSection(iterations=12, learning_rate=0.3, leaves=7, jets_in_leaf=5)


def jets(classes, number=400, seed=3):
    """What `fit_trees` looks at of a prepared dataset, with values that are missing."""
    rng = np.random.default_rng(seed)
    labels_J = rng.integers(0, classes, number)
    features_JF = rng.normal(labels_J[:, None] * [1.0, -0.5, 0.0], 1.0, (number, 3)).astype(np.float32)
    features_JF[rng.random(features_JF.shape) < 0.15] = np.nan
    features_JF[labels_J == 1, 2] = np.where(rng.random((labels_J == 1).sum()) < 0.7, np.nan, 0.0)
    features_JF[:4, 1] = [np.inf, -np.inf, np.inf, -np.inf]

    def read(rows_R, inputs):
        assert inputs.jet
        return RawInputs(features_JF[rows_R], {})

    return SimpleNamespace(
        labels_J=labels_J,
        classes=("QCD", "W", "Top")[:classes],
        spec=InputSpec(jet=tuple(Feature(name) for name in ("pt", "mass", "tau32"))),
        read=read,
        features_JF=features_JF,
    )


def fitted(prepared, weights=None, **arguments):
    rows = np.arange(len(prepared.labels_J))
    weights = np.ones(len(rows), np.float32) if weights is None else weights
    return baselines.fit_trees(SECTION, prepared, rows, weights, **{"seed": 1} | arguments)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_probabilities_are_those_of_scikit_learn(classes, weighted):
    prepared = jets(classes)
    weights = np.ones(400, np.float32)
    if weighted:
        weights = np.random.default_rng(0).exponential(size=400).astype(np.float32)
        weights[::9] = 0
    trees = fitted(prepared, weights)
    model = HistGradientBoostingClassifier(
        max_iter=12, learning_rate=0.3, max_leaf_nodes=7, min_samples_leaf=5, early_stopping=False
    )
    model.fit(prepared.features_JF, prepared.labels_J, sample_weight=weights)
    fresh = jets(classes, seed=8).features_JF
    for features_JF in (prepared.features_JF, fresh, np.full((2, 3), np.nan, np.float32)):
        found = trees.probabilities(features_JF)
        assert found.shape == (len(features_JF), classes)
        assert np.allclose(found, model.predict_proba(features_JF), atol=1e-9)
    assert trees.probabilities(fresh[:0]).shape == (0, classes)
    assert len(trees.first) == 12 * (1 if classes == 2 else 3)
    assert trees.features == ("pt", "mass", "tau32")


def test_only_the_given_rows_are_used():
    prepared = jets(2)
    rows = np.arange(0, 400, 2)
    some = baselines.fit_trees(SECTION, prepared, rows, np.ones(200, np.float32), seed=1)
    assert np.array_equal(baselines.jet_features(prepared, rows), prepared.features_JF[rows], equal_nan=True)
    assert not np.allclose(
        some.probabilities(prepared.features_JF), fitted(prepared).probabilities(prepared.features_JF)
    )


def test_a_stump_and_a_single_leaf():
    prepared = jets(2)
    for section in (
        SECTION.model_copy(update={"iterations": 1, "leaves": 2}),
        SECTION.model_copy(update={"iterations": 1, "jets_in_leaf": 400}),
    ):
        trees = baselines.fit_trees(section, prepared, np.arange(400), np.ones(400, np.float32), seed=1)
        assert 1 <= trees.leaf.sum() <= 2
        assert np.allclose(trees.probabilities(prepared.features_JF).sum(1), 1)


@pytest.mark.parametrize("classes", [2, 3])
def test_saved_and_loaded_without_pickle(tmp_path, classes):
    prepared = jets(classes)
    trees = fitted(prepared)
    path = tmp_path / "new" / "trees.npz"
    trees.save(path)
    loaded = baselines.load_trees(path)
    assert loaded.features == trees.features
    assert loaded.classes == trees.classes
    assert np.array_equal(
        loaded.probabilities(prepared.features_JF), trees.probabilities(prepared.features_JF)
    )
    with np.load(path, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "biufU" for name in arrays)
    assert [file.name for file in path.parent.iterdir()] == ["trees.npz"]


def test_another_format_is_refused(tmp_path):
    path = tmp_path / "trees.npz"
    fitted(jets(2)).save(path)
    with np.load(path) as arrays:
        stored = dict(arrays)
    np.savez(path, **stored | {"format": 7})
    with pytest.raises(JettaggerError, match=r"trees\.npz: trees of format 7, this version reads 1"):
        baselines.load_trees(path)


def test_negative_weights_are_refused():
    weights = np.ones(400, np.float32)
    weights[5] = -1
    with pytest.raises(JettaggerError, match="trees cannot be fitted to negative event weights"):
        fitted(jets(2), weights)


def test_an_unknown_version_of_scikit_learn_is_noticed(monkeypatch):
    as_arrays = baselines._as_arrays
    monkeypatch.setattr(
        baselines, "_as_arrays", lambda *given: (t := as_arrays(*given))._replace(offset=t.offset + 1)
    )
    with pytest.raises(JettaggerError, match="the stored trees differ from scikit-learn's by 0"):
        fitted(jets(2))


def cut(discriminant, window=None):
    extras = {"baselines.cut.discriminant": np.array(discriminant, np.float64)}
    if window is not None:
        extras["baselines.cut.window"] = np.array(window, np.float64)
    return baselines.cut_scores(extras)


def test_jets_outside_the_window_lie_below_all_inside():
    scores = cut([-0.5, -0.2, -0.9, -0.1], [1, 0, 1, 0])
    assert scores[[0, 2]].tolist() == [-0.5, -0.9]
    assert scores[[1, 3]].max() < scores[[0, 2]].min()
    assert scores[1] < scores[3], "the discriminant still ranks those outside"
    assert cut([-0.5, 3.0]).tolist() == [-0.5, 3.0]


def test_what_is_not_finite_counts_as_the_lowest():
    scores = cut([0.3, np.nan, np.inf, -np.inf, 0.1], [1, 1, 1, 0, 1])
    assert scores[[0, 1, 2, 4]].tolist() == [0.3, 0.1, 0.1, 0.1]
    assert scores[3] < 0.1
    assert np.isfinite(cut([np.nan, np.nan], [1, 0])).all()
    assert np.isfinite(cut([2.0, 2.0], [1, 0])).all()
    assert cut([2.0, 2.0], [1, 0])[1] < 2.0
    assert len(cut([])) == 0


def test_a_window_that_is_not_defined_is_outside():
    assert cut([1.0, 2.0], [1, np.nan])[1] < 1.0


def test_what_the_prepared_data_have_to_hold():
    assert baselines.expressions(BaselinesSection()) == {}
    plain = CutSection(signal="Top", discriminant="-jet_tau3")
    assert baselines.expressions(BaselinesSection(cut=plain)) == {"baselines.cut.discriminant": "-jet_tau3"}
    windowed = plain.model_copy(update={"window": "jet_sdmass > 100"})
    assert list(baselines.expressions(BaselinesSection(cut=windowed))) == [
        "baselines.cut.discriminant",
        "baselines.cut.window",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "baselines.cut={signal: Topp, discriminant: jet_pt}",
            r"baselines\.cut\.signal: 'Topp' is not in classes \(allowed: QCD, Top\)",
        ),
        (
            "baselines.cut={signal: QCD, discriminant: jet_pt}",
            r"baselines\.cut\.signal: the cut selects 'QCD', and the signal, by default the last class, is 'Top'",
        ),
        (
            "baselines.boosted_trees.leaves=1",
            r"baselines\.boosted_trees\.leaves: 1 is out of range",
        ),
        (
            "baselines.cut={signal: Top, discriminant: jet_pt +}",
            r"baselines\.cut\.discriminant: .*cannot be read as an expression",
        ),
    ],
)
def test_sections_that_do_not_fit(override, message):
    with pytest.raises(JettaggerError, match=message):
        configuration.loads(CONFIG.format(folder="x"), overrides=[override])


def test_the_signal_of_a_cut_can_be_set():
    config = configuration.loads(
        CONFIG.format(folder="x"),
        overrides=["baselines.cut={signal: QCD, discriminant: jet_pt}", "evaluation.signal=QCD"],
    )
    assert config.baselines.cut.signal == "QCD"


def test_trees_need_jet_level_variables():
    text = CONFIG.format(folder="x")
    without = text[: text.index("  jet:\n")] + text[text.index("spectators:") :]
    without = without.replace(
        "model: {architecture: mlp, widths: [16], dropout: 0.1}", "model: {architecture: particle_cnn}"
    )
    with pytest.raises(
        JettaggerError, match=r"baselines\.boosted_trees: trees need jet-level variables: add inputs\.jet"
    ):
        configuration.loads(without, overrides=["baselines.boosted_trees={}"])
