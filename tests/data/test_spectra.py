"""Training weights: flat, matched and balanced spectra, capped; jets drawn in proportion."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_columns import config

from jettagger import configuration
from jettagger.data import spectra
from jettagger.data.order import draws
from jettagger.data.prepared import prepare
from jettagger.data.schema import DataConfig
from jettagger.data.spectra import loss_weights, weights_of
from jettagger.errors import JettaggerError
from toy_jets import CONFIG, toy_jets, write_jets

PT, ETA = [480, 520, 600, 700], [-1.0, 0.0, 1.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """2 x 1000 jets whose spectra of jet_pt and jet_eta differ; Top has none in the second bin of jet_pt."""
    folder = tmp_path_factory.mktemp("spectra")
    for number, name in enumerate(("QCD", "Top")):
        jets = toy_jets(name, 1000, number + 1)
        rng = np.random.default_rng(number)
        jets["jet_pt"] = (480 + (1 - rng.uniform(size=1000) ** (1 + number)) * 220).astype(np.float32)
        jets["jet_mass"] = np.where((name == "Top") & (jets["jet_pt"] < 600), 60.0, jets["jet_sdmass"])
        write_jets(folder / f"{name}.root", jets)
    return folder


@pytest.fixture
def training(folder):
    """`training(flatten=…)`: a dataset with what these training weights need, and their section."""

    def make(**section):
        samples = {name: str(folder / f"{name}.root") for name in ("QCD", "Top")}
        document = config(
            data__prepared=str(folder / "prepared"), data__train=samples, data__selection=None, data__test={}
        ).model_dump(by_alias=True)
        weights = {"event": "gen_weight", "training": section}
        settings = DataConfig.model_validate({**document, "weights": weights})
        training = settings.weights.training
        extras = spectra.expressions(training)
        return prepare(settings, samples, role="data.train", extras=extras), training

    return make


def column(dataset, number):
    return list(dataset.extras.values())[number]


def histogram(dataset, rows, weights, name, *edges):
    """A class's spectrum by NumPy."""
    here = dataset.labels_J[rows] == dataset.classes.index(name)
    x = np.stack([column(dataset, n)[rows][here] for n in range(len(edges))], axis=1)
    return np.histogramdd(x, edges, weights=weights[here])[0]


def found(dataset, section, rows=None):
    rows = np.arange(len(dataset)) if rows is None else rows
    result = weights_of(dataset, rows, section, dataset.classes)
    assert result.factor_R.dtype == np.float32
    assert (result.factor_R >= 0).all()
    return result, dataset.weights_J[rows] * result.factor_R


def test_flattened_spectra_are_flat_in_event_weights(training):
    dataset, section = training(flatten={"jet_pt": PT})
    rows = np.arange(0, len(dataset), 2)
    _, weights = found(dataset, section, rows)
    for name in dataset.classes:
        before = histogram(dataset, rows, dataset.weights_J[rows], name, PT)
        after = histogram(dataset, rows, weights, name, PT)
        assert after == pytest.approx(np.full(3, before.sum() / 3), rel=1e-5)


def test_flat_in_two_dimensions_and_outside_left_out(training):
    dataset, section = training(flatten={"jet_pt": PT, "jet_eta": ETA})
    rows = np.arange(len(dataset))
    result, weights = found(dataset, section)
    outside = np.abs(column(dataset, 1)) > 1
    assert np.array_equal(weights == 0, outside)
    assert result.outside == outside.sum() > 0
    assert result.notes == (
        f"weights.training.flatten: {outside.sum()} of 2000 training jets lie outside the edges and are left out",
    )
    for name in dataset.classes:
        after = histogram(dataset, rows, weights, name, PT, ETA)
        assert after == pytest.approx(np.full((3, 2), after.mean()), rel=1e-5)


def test_matched_spectra_take_the_reference_s_shape(training):
    dataset, section = training(match={"to": "QCD", "spectrum": {"jet_pt": PT, "jet_eta": ETA}})
    rows = np.arange(len(dataset))
    _, weights = found(dataset, section)
    qcd, top = (histogram(dataset, rows, weights, name, PT, ETA) for name in dataset.classes)
    assert top / top.sum() == pytest.approx(qcd / qcd.sum(), rel=1e-5)
    inside = weights != 0
    assert weights[inside & (dataset.labels_J == 0)] == pytest.approx(
        dataset.weights_J[inside & (dataset.labels_J == 0)], rel=1e-6
    )
    before = histogram(dataset, rows, dataset.weights_J, "Top", PT, ETA)
    assert top.sum() == pytest.approx(before.sum(), rel=1e-5)


def test_expressions_are_variables(training):
    dataset, section = training(flatten={"log(jet_pt / 500)": [-1.0, 0.1, 0.5]})
    assert np.allclose(column(dataset, 0), column(training(flatten={"log(jet_pt / 500)": [-1, 1]})[0], 0))
    result, weights = found(dataset, section)
    assert result.outside == 0
    after = histogram(dataset, np.arange(len(dataset)), weights, "Top", [-1.0, 0.1, 0.5])
    assert after[0] == pytest.approx(after[1], rel=1e-5)


def test_the_last_edge_belongs_to_its_bin_and_missing_values_are_outside(training):
    dataset, section = training(flatten={"jet_pt": [500, 600, 700]})
    pt_J = np.full(len(dataset), 600.0)
    pt_J[:5] = [500, 700, 700.001, np.nan, np.inf]
    pt_J[1000:1002] = [500, 700]
    result, _ = found(_WithExtras(dataset, [pt_J]), section)
    assert result.outside == 3
    assert (result.factor_R == 0).nonzero()[0].tolist() == [2, 3, 4]


class _WithExtras:
    """A dataset with other columns."""

    def __init__(self, dataset, columns, weights_J=None):
        self.classes, self.labels_J = dataset.classes, dataset.labels_J
        self.weights_J = dataset.weights_J if weights_J is None else weights_J
        self.extras = dict(zip(dataset.extras, columns, strict=True))

    def __len__(self):
        return len(self.labels_J)


def test_the_reference_is_fitted_on_the_training_split_only(training):
    dataset, section = training(match={"to": "QCD", "spectrum": {"jet_pt": PT}}, balance="classes")
    rows = np.arange(0, len(dataset), 3)
    whole, _ = found(dataset, section, rows)
    others = np.setdiff1d(np.arange(len(dataset)), rows)
    changed = column(dataset, 0).copy()
    changed[others] = 490.0
    again, _ = found(_WithExtras(dataset, [changed]), section, rows)
    assert np.array_equal(whole.factor_R, again.factor_R)


def test_bins_that_cannot_be_filled_are_said(training):
    dataset, section = training(match={"to": "Top", "spectrum": {"jet_mass": [0, 50, 70, 100, 500]}})
    mass_J = column(dataset, 0).copy()
    mass_J[(dataset.labels_J == 1) & (mass_J < 50)] = 60.0
    mass_J[(dataset.labels_J == 0) & (mass_J >= 100)] = 99.0
    result, weights = found(_WithExtras(dataset, [mass_J]), section)
    lost = int(((dataset.labels_J == 0) & (mass_J >= 0) & (mass_J < 50)).sum())
    outside = int(((mass_J < 0) | (mass_J > 500)).sum())
    assert result.notes[-2:] == (
        f"weights.training.match: {lost} jets of class QCD are left out: in their bins their event weights add up "
        "to 0 or less, or Top has none there",
        "weights.training.match: class QCD has no jets in 1 of 4 bins",
    )
    assert (weights == 0).sum() == lost + outside


def test_bins_whose_weights_cancel_are_left_out_and_said(training):
    dataset, section = training(flatten={"jet_pt": [480, 590, 700]})
    pt_J, weights_J = np.where(np.arange(2000) % 2 == 0, 500.0, 600.0), np.ones(2000)
    weights_J[:1000:2] = np.tile([1.0, -1.0], 250)
    result, weights = found(_WithExtras(dataset, [pt_J], weights_J), section)
    assert (weights[:1000:2] == 0).all()
    assert result.notes == (
        "weights.training.flatten: 500 jets of class QCD are left out: in their bins their event weights add up "
        "to 0 or less",
    )


def test_a_class_without_any_bin_is_refused(training):
    dataset, section = training(flatten={"jet_pt": [480, 700]})
    pt_J = np.where(dataset.labels_J == 1, 400.0, 500.0)
    with pytest.raises(
        JettaggerError, match=r"training\.flatten: no bin holds jets of class Top with a positive sum"
    ):
        found(_WithExtras(dataset, [pt_J]), section)


@pytest.mark.parametrize(
    "section", [{}, {"flatten": {"jet_pt": PT}}, {"flatten": {"jet_pt": PT}, "cap": 1.2}]
)
def test_balance_gives_classes_equal_sums_after_all_else(training, section):
    dataset, section = training(balance="classes", **section)
    rows = np.flatnonzero((dataset.labels_J == 1) | (np.arange(len(dataset)) % 10 == 0))
    _, weights = found(dataset, section, rows)
    sums = np.bincount(dataset.labels_J[rows], weights)
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)
    assert sums.sum() == pytest.approx(dataset.weights_J[rows].sum(), rel=1e-5)


def test_balance_of_a_class_without_weight_is_refused(training):
    dataset, section = training(balance="classes")
    negative = replace(dataset, weights_J=np.where(dataset.labels_J == 1, -1.0, 1.0))
    with pytest.raises(JettaggerError, match=r"balance: the event weights of class Top add up to -1000"):
        found(negative, section)


def test_nothing_asked_for_changes_nothing(training):
    dataset, section = training()
    result, weights = found(dataset, section)
    assert (result.factor_R == 1).all()
    assert (result.outside, result.capped, result.largest, result.notes) == (0, 0, 1.0, ())
    assert np.array_equal(weights, dataset.weights_J)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-3, 1e3), st.integers(0, 40)), min_size=1, max_size=12),
    st.floats(1.05, 10),
)
def test_capped_factors_are_at_most_the_cap_times_their_mean(bins, cap):
    factors, jets = (np.array(x) for x in zip(*bins, strict=True))
    factors = factors * (jets > 0)
    limit = spectra._limit(factors, jets * (factors > 0), cap)
    capped = np.minimum(factors, limit)
    if not jets.sum():
        assert limit == np.inf
        return
    mean = (jets * capped).sum() / jets.sum()
    assert capped.max() <= cap * mean * (1 + 1e-9)
    if (capped < factors).any():
        assert capped.max() == pytest.approx(cap * mean)
    else:
        assert factors.max() <= cap * (jets * factors).sum() / jets.sum() * (1 + 1e-9)


def test_a_cap_is_kept_counted_and_said(training):
    free, _ = found(*training(flatten={"jet_pt": PT}))
    dataset, section = training(flatten={"jet_pt": PT}, cap=1.3)
    result, weights = found(dataset, section)
    assert free.largest > 1.3 == pytest.approx(result.largest, rel=1e-5)
    assert 0 < result.capped < len(dataset)
    assert result.notes == (
        f"weights.training.cap: the weights of {result.capped} jets are lowered to 1.3 × the mean",
    )
    sums = np.bincount(dataset.labels_J, weights), np.bincount(dataset.labels_J, dataset.weights_J)
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)


def test_no_jet_is_repeated_more_often_than_the_cap(training):
    """One jet of a hundred is of class 0: balanced, it would be drawn fifty times in an epoch."""
    dataset, section = training(balance="classes", method="sampling", cap=3)
    rare = np.where(np.arange(len(dataset)) % 100 == 0, 0, 1).astype(dataset.labels_J.dtype)
    dataset = replace(dataset, labels_J=rare, weights_J=np.ones(len(dataset)))
    result, _ = found(dataset, section)
    times = np.bincount(draws(result.factor_R, np.random.default_rng(1)), minlength=len(dataset))
    assert times.max() == 3
    assert times[rare == 0].mean() == pytest.approx(3, abs=0.5)
    assert result.capped == (rare == 0).sum()
    assert result.notes[-1].endswith("3 × the mean of all jets: a jet is drawn no more often in an epoch")


def test_a_cap_that_nothing_reaches_changes_nothing(training):
    free, _ = found(*training(flatten={"jet_pt": PT}))
    result, _ = found(*training(flatten={"jet_pt": PT}, cap=50))
    assert result.capped == 0
    assert np.array_equal(result.factor_R, free.factor_R)


@pytest.mark.parametrize("weight", [1e60, 1e-60])
def test_weights_beyond_float32_are_refused(training, weight):
    dataset, _ = training()
    extreme = replace(dataset, weights_J=np.where(dataset.labels_J == 1, weight, 1.0))
    with pytest.raises(JettaggerError, match=r"weights\.event: a weight of 1e[+-]60 is beyond float32"):
        loss_weights(extreme, np.arange(len(extreme)))


def test_small_labels_and_weights_are_taken(training):
    dataset, section = training(flatten={"jet_pt": PT}, balance="classes")
    small = replace(
        dataset, labels_J=dataset.labels_J.astype(np.uint8), weights_J=dataset.weights_J.astype(np.float32)
    )
    assert found(small, section)[0].factor_R == pytest.approx(found(dataset, section)[0].factor_R, rel=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(st.just(0.0), st.floats(2.0**-20, 2.0**20, width=32)), min_size=1, max_size=300
    ).filter(any),
    st.integers(0, 2**32),
)
def test_draws_are_as_many_as_there_are_and_each_rounded(factors, seed):
    factor_R = np.array(factors, np.float32)
    drawn_D = draws(factor_R, np.random.default_rng(seed))
    assert len(drawn_D) == len(factor_R)
    assert (np.diff(drawn_D) >= 0).all()
    times_R = np.bincount(drawn_D, minlength=len(factor_R))
    expected_R = len(factor_R) * factor_R.astype(float) / factor_R.astype(float).sum()
    assert (times_R >= np.floor(expected_R - 1e-6)).all()
    assert (times_R <= np.ceil(expected_R + 1e-6)).all()
    assert (times_R[factor_R == 0] == 0).all()


def test_draws_are_as_expected_over_many_epochs():
    factor_R = np.linspace(0, 1, 50).astype(np.float32)
    times = (
        sum(np.bincount(draws(factor_R, np.random.default_rng(n)), minlength=50) for n in range(2000)) / 2000
    )
    assert times == pytest.approx(50 * factor_R / factor_R.sum(), abs=0.05)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            "{flatten: {jet_pt: [1, 2]}, match: {to: QCD, spectrum: {jet_pt: [1, 2]}}}",
            "leave flatten or match out",
        ),
        (
            "{method: sampling}",
            r"training\.method: there is nothing to sample by: add balance: classes, flatten",
        ),
        (
            "{cap: 3, balance: classes}",
            r"training\.cap: without flatten or match all jets of a class weigh the same",
        ),
        (
            "{match: {to: Topp, spectrum: {jet_pt: [1, 2]}}}",
            r"match\.to: unknown class 'Topp': did you mean 'Top'",
        ),
        ("{flatten: {jet_pt: [1, 3, 2]}}", r"flatten\.jet_pt: edges ascend; 2 follows 3"),
        ("{flatten: {jet_pt: [1]}}", r"flatten\.jet_pt: 1 given, at least 2 expected"),
        ("{flatten: {jet_pt +: [1, 2]}}", r"flatten"),
        ("{flatten: {a: [1, 2], b: [1, 2], c: [1, 2]}}", r"flatten: 3 given, at most 2 expected"),
    ],
)
def test_weights_that_do_not_go_together_are_refused(tmp_path, section, message):
    with pytest.raises(JettaggerError, match=message):
        configuration.loads(CONFIG.format(folder=tmp_path), overrides=[f"weights={{training: {section}}}"])
