"""Figures of merit by hand, against scikit-learn, and their errors against the spread of repeated toys."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import calibration
from sklearn import metrics as sklearn_metrics

from jettagger import metrics
from jettagger.errors import JettaggerError


def toy(jets=4000, distance=1.5, seed=0, weighted=True):
    """Gaussian scores one unit wide, `distance` apart."""
    rng = np.random.default_rng(seed)
    signal_N = rng.random(jets) < 0.4
    scores_N = rng.normal(size=jets) + distance * signal_N
    weights_N = rng.exponential(size=jets) if weighted else np.ones(jets)
    return scores_N, signal_N, weights_N


def probabilities(jets=3000, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    p_NC = rng.dirichlet(np.ones(classes), jets)
    labels_N = (p_NC.cumsum(1) > rng.random((jets, 1))).argmax(1)
    return p_NC, labels_N, rng.exponential(size=jets)


def test_roc_by_hand():
    # Descending: S 0.9 (w 2), B 0.8 and S 0.8 together, B 0.1 (w 3).
    ranking = metrics.rank([0.9, 0.8, 0.8, 0.1], [True, True, False, False], [2, 1, 1, 3])
    curve = metrics.roc(ranking)
    np.testing.assert_allclose(curve.threshold_T, [np.inf, 0.9, 0.8, 0.1])
    np.testing.assert_allclose(curve.signal_efficiency_T, [0, 2 / 3, 1, 1])
    np.testing.assert_allclose(curve.background_efficiency_T, [0, 0, 1 / 4, 1])
    # Pairs: S0.9 beats both (2 * 4), S0.8 beats B0.1 (1 * 3) and ties with B0.8 (1 * 1 / 2), of 12.
    assert metrics.auc(ranking).value == pytest.approx((8 + 3 + 0.5) / 12)


def test_rejection_by_hand():
    scores_N = np.array([0.9, 0.7, 0.5, 0.3, 0.8, 0.4, 0.2, 0.1])
    signal_N = np.array([True] * 4 + [False] * 4)
    ranking = metrics.rank(scores_N, signal_N)
    half = metrics.rejection(ranking, 0.5)
    assert (half.value, half.threshold, half.signal_efficiency) == (4.0, 0.7, 0.5)
    # sigma_R / R = sqrt((1 - e) / (n e)) = sqrt(0.75 / 1)
    assert half.error == pytest.approx(4 * np.sqrt(0.75))
    between = metrics.rejection(ranking, 0.51)
    assert (between.signal_efficiency, between.background_efficiency) == (0.75, 0.25)


def test_without_background_left_there_is_a_limit_and_no_infinity():
    ranking = metrics.rank([3.0, 2.0, 1.0, 0.0], [True, True, False, False])
    found = metrics.rejection(ranking, 1.0)
    assert found.value is None
    assert found.error is None
    # At R = limit, no jet of two survives with probability 1 - 0.6827.
    assert (1 - 1 / found.lower_limit) ** 2 == pytest.approx(1 - 0.6827)


def test_equal_scores_pass_together():
    ranking = metrics.rank(np.zeros(10), np.arange(10) < 5)
    found = metrics.rejection(ranking, 0.3)
    assert (found.value, found.signal_efficiency) == (1.0, 1.0)
    assert metrics.auc(ranking).value == 0.5


def test_infinite_scores_are_ranked_and_nan_refused():
    ranking = metrics.rank([np.inf, 1.0, -np.inf, -np.inf], [True, True, True, False])
    assert metrics.auc(ranking).value == pytest.approx(2.5 / 3)
    with pytest.raises(JettaggerError, match="1 of 2 scores are NaN"):
        metrics.rank([np.nan, 1.0], [True, False])


def test_a_missing_side_is_named():
    with pytest.raises(JettaggerError, match="no background jets"):
        metrics.rank([1.0, 2.0], [True, True])
    with pytest.raises(JettaggerError, match="no signal jets, or their weights"):
        metrics.rank([1.0, 2.0], [True, False], [-1.0, 1.0])


@pytest.mark.parametrize("digits", [1, 12])
def test_auc_is_scikit_learns(digits):
    scores_N, signal_N, weights_N = toy()
    scores_N = scores_N.round(digits)
    expected = sklearn_metrics.roc_auc_score(signal_N, scores_N, sample_weight=weights_N)
    assert metrics.auc(metrics.rank(scores_N, signal_N, weights_N)).value == pytest.approx(
        expected, abs=1e-12
    )


def test_roc_is_scikit_learns():
    scores_N, signal_N, weights_N = toy(500)
    curve = metrics.roc(metrics.rank(scores_N, signal_N, weights_N))
    fpr, tpr, thresholds = sklearn_metrics.roc_curve(
        signal_N, scores_N, sample_weight=weights_N, drop_intermediate=False
    )
    np.testing.assert_allclose(curve.background_efficiency_T, fpr, atol=1e-12)
    np.testing.assert_allclose(curve.signal_efficiency_T, tpr, atol=1e-12)
    np.testing.assert_array_equal(curve.threshold_T, thresholds)


def test_macro_auc_is_scikit_learns():
    p_NC, labels_N, weights_N = probabilities()
    rankings = [metrics.rank(p_NC[:, k], labels_N == k, weights_N) for k in range(3)]
    expected = sklearn_metrics.roc_auc_score(labels_N, p_NC, multi_class="ovr", sample_weight=weights_N)
    assert metrics.macro_auc(rankings).value == pytest.approx(expected, abs=1e-12)


def test_nll_brier_and_accuracy_are_scikit_learns():
    p_NC, labels_N, w_N = probabilities()
    assert metrics.nll(p_NC, labels_N, w_N).value == pytest.approx(
        sklearn_metrics.log_loss(labels_N, p_NC, sample_weight=w_N)
    )
    accuracy = sklearn_metrics.accuracy_score(labels_N, p_NC.argmax(1), sample_weight=w_N)
    assert metrics.accuracy(p_NC, labels_N, w_N).value == pytest.approx(accuracy)
    two_NC, y_N, w_N = probabilities(classes=2)
    # Over both classes: twice the one-class convention.
    one_class = sklearn_metrics.brier_score_loss(y_N, two_NC[:, 1], sample_weight=w_N)
    assert metrics.brier(two_NC, y_N, w_N).value == pytest.approx(2 * one_class)


def test_confusion_is_scikit_learns():
    p_NC, labels_N, w_N = probabilities()
    found = metrics.confusion(p_NC, labels_N, w_N)
    expected = sklearn_metrics.confusion_matrix(labels_N, p_NC.argmax(1), sample_weight=w_N, normalize="true")
    np.testing.assert_allclose(found.fraction_CC, expected)
    assert (found.error_CC > 0).all()


def test_calibration_curve_is_scikit_learns():
    p_NC, y_N, _ = probabilities(classes=2)
    found = metrics.calibration_curve(p_NC[:, 1], y_N, bins=10)
    observed, predicted = calibration.calibration_curve(y_N, p_NC[:, 1], n_bins=10)
    np.testing.assert_allclose(found.observed_K, observed)
    np.testing.assert_allclose(found.predicted_K, predicted)
    assert ((found.low_K <= found.observed_K) & (found.observed_K <= found.high_K)).all()


def test_the_two_binary_conventions_differ_as_they_are_known_to():
    # p and y chosen so that P(y = 1) is off by 0.1 in both halves, and the errors cancel in max(p, 1 - p).
    p_N = np.repeat([0.2, 0.8], 100)
    y_N = np.concatenate([np.arange(100) < 30, np.arange(100) < 90])
    two_NC = np.column_stack([1 - p_N, p_N])
    assert metrics.binary_ece(p_N, y_N).value == pytest.approx(0.1)
    assert metrics.top_label_ece(two_NC, y_N.astype(int)).value == pytest.approx(0.0, abs=1e-12)


def test_ece_by_hand():
    # Bins (0.6, 0.667] and (0.933, 1]: gaps 0.62 - 0.5 and 0.95 - 1, half the jets each.
    two_NC = np.array([[0.38, 0.62], [0.38, 0.62], [0.05, 0.95], [0.05, 0.95]])
    labels_N = np.array([1, 0, 1, 1])
    assert metrics.top_label_ece(two_NC, labels_N).value == pytest.approx(0.06 + 0.025)
    assert metrics.adaptive_ece(two_NC, labels_N, bins=2).value == pytest.approx(0.06 + 0.025)


def test_calibrated_labels_show_the_ece_floor():
    rng = np.random.default_rng(5)
    found, floors, quoted = [], [], []
    for _ in range(200):
        p_N = rng.random(2000)
        measured = metrics.binary_ece(p_N, rng.random(2000) < p_N)
        found.append(measured.value)
        quoted.append(measured.error)
        floors.append(metrics.ece_floor(p_N))
    assert np.mean(found) == pytest.approx(np.mean(floors), rel=0.05)
    assert np.std(found) == pytest.approx(np.mean(quoted), rel=0.25)


def test_gaussian_toy_reaches_its_known_auc():
    scores_N, signal_N, _ = toy(100_000, distance=1.5, weighted=False)
    found = metrics.auc(metrics.rank(scores_N, signal_N))
    assert abs(found.value - norm.cdf(1.5 / np.sqrt(2))) < 3 * found.error


def test_quoted_errors_cover_the_spread_of_toys():
    values, errors = [], []
    for seed in range(150):
        scores_N, signal_N, weights_N = toy(1500, seed=seed)
        ranking = metrics.rank(scores_N, signal_N, weights_N)
        # The cut is given, as the binomial error has it.
        passing = metrics.efficiency(scores_N[~signal_N] > 1.5, weights_N[~signal_N])
        each = [metrics.auc(ranking), passing, metrics.weighted_mean(scores_N**2, weights_N)]
        values.append([one.value for one in each])
        errors.append([one.error for one in each])
    ratio = np.std(values, axis=0, ddof=1) / np.mean(errors, axis=0)
    np.testing.assert_allclose(ratio, 1, atol=0.2)


def test_rejection_error_is_binomial():
    scores_N, signal_N, _ = toy(20_000, weighted=False)
    found = metrics.rejection(metrics.rank(scores_N, signal_N), 0.5)
    e_b, n = found.background_efficiency, (~signal_N).sum()
    assert found.error / found.value == pytest.approx(np.sqrt((1 - e_b) / (n * e_b)))


def test_bootstrap_agrees_with_delong_and_with_toys():
    scores_N, signal_N, weights_N = toy(4000)
    ranking = metrics.rank(scores_N, signal_N, weights_N)
    (values_R,) = metrics.bootstrap([metrics.ranking_statistic(ranking, [0.5])], weights_N, replicas=400)
    errors = metrics.spread(values_R)
    assert errors[0] == pytest.approx(metrics.auc(ranking).error, rel=0.12)
    log_r = []
    for seed in range(100, 250):
        other = metrics.rank(*toy(4000, seed=seed))
        log_r.append(np.log(metrics.rejection(other, 0.5).value))
    assert errors[1] == pytest.approx(np.std(log_r, ddof=1), rel=0.25)


def test_unresampled_statistics_are_the_figures():
    scores_N, signal_N, weights_N = toy(500)
    ranking = metrics.rank(scores_N, signal_N, weights_N)
    (row,) = metrics.ranking_statistic(ranking, [0.3, 0.8])(weights_N[None])
    expected = [metrics.auc(ranking).value] + [
        np.log(metrics.rejection(ranking, e).value) for e in (0.3, 0.8)
    ]
    np.testing.assert_allclose(row, expected)
    p_NC, labels_N, weights_N = probabilities()
    (row,) = metrics.ece_statistic(p_NC, labels_N)(weights_N[None])
    np.testing.assert_allclose(row, metrics.top_label_ece(p_NC, labels_N, weights_N).value)
    (row,) = metrics.mean_statistic(p_NC[:, 0])(weights_N[None])
    np.testing.assert_allclose(row, metrics.weighted_mean(p_NC[:, 0], weights_N).value)


def test_pairing_makes_differences_sharp():
    scores_N, signal_N, weights_N = toy(3000)
    almost_N = scores_N + 0.05 * np.random.default_rng(1).normal(size=3000)
    first, second = (metrics.rank(s, signal_N, weights_N) for s in (scores_N, almost_N))
    found = metrics.paired_bootstrap(first, second, weights_N, signal_efficiencies=[0.5], replicas=100)
    assert found.auc_difference.error < 0.2 * found.first_error[0]
    ratio = metrics.rejection(first, 0.5).value / metrics.rejection(second, 0.5).value
    assert found.log_rejection_ratio[0].value == pytest.approx(np.log(ratio))
    same = metrics.paired_bootstrap(first, first, weights_N, replicas=20)
    assert same.auc_difference == (0.0, 0.0)


def test_replicas_belong_to_the_jet_and_not_to_its_place():
    blocks = [counts for _, counts in metrics.replica_counts(np.arange(100), 5, seed=3)]
    (some,) = [counts for _, counts in metrics.replica_counts(np.array([7, 50]), 5, seed=3)]
    np.testing.assert_array_equal(np.concatenate(blocks)[:, [7, 50]], some)


def test_replicas_are_poisson():
    counts = np.concatenate([c for _, c in metrics.replica_counts(np.arange(20_000), 10)])
    assert counts.mean() == pytest.approx(1, abs=0.01)
    assert counts.var() == pytest.approx(1, abs=0.02)


def test_an_error_from_too_many_undefined_replicas_is_undefined():
    values_R = np.array([[1.0, 1.0], [2.0, np.nan], [3.0, np.nan]])
    found = metrics.spread(values_R)
    assert found[0] == pytest.approx(1.0)
    assert np.isnan(found[1])


def test_risk_coverage_by_hand():
    curve = metrics.error_against_coverage([0.3, 0.1, 0.2, 0.3], [True, False, True, False])
    np.testing.assert_allclose(curve.coverage_G, [0.25, 0.5, 1.0])
    np.testing.assert_allclose(curve.risk_G, [0, 0.5, 0.5])
    assert curve.area == pytest.approx(0.25 * 0 + 0.25 * 0.5 + 0.5 * 0.5)
    assert metrics.risk_at_coverage(curve, 0.5) == 0.5
    # Wrong: 0.3, 0.2. Right: 0.1, 0.3. Pairs: .3>.1, .3=.3, .2>.1, .2<.3.
    found = metrics.misclassification_auc([0.3, 0.1, 0.2, 0.3], [True, False, True, False])
    assert found.value == pytest.approx(2.5 / 4)
    assert np.isnan(metrics.misclassification_auc([0.1, 0.2], [False, False]).value)


def test_wilson_by_hand():
    # p = 0: [0, z^2 / (n + z^2)]; the interval at p = 1 mirrors it.
    np.testing.assert_allclose(metrics.wilson(0.0, 9), (0.0, 0.1))
    np.testing.assert_allclose(metrics.wilson(1.0, 9), (0.9, 1.0))
    np.testing.assert_allclose(metrics.wilson(0.5, 0), (0.0, 1.0))


def test_efficiency_in_bins_by_hand():
    found = metrics.efficiency_in_bins([1, 1, 1, 1, 3, 7], [0, 2, 4, 6], [1, 1, 1, 0, 0, 1])
    np.testing.assert_allclose(found.value, [0.75, 0.0, np.nan])
    np.testing.assert_allclose(found.entries, [4, 1, 0])
    assert found.low[1] == 0
    assert (found.low[2], found.high[2]) == (0, 1)


def test_histogram_is_numpys():
    rng = np.random.default_rng(0)
    values_N, weights_N = rng.normal(size=1000), rng.normal(size=1000)
    edges = np.linspace(-2, 2, 9)
    found = metrics.histogram(
        np.append(values_N, [2.0, np.nan, np.inf]), edges, np.append(weights_N, [1, 1, 1])
    )
    expected = np.histogram(np.append(values_N, 2.0), edges, weights=np.append(weights_N, 1.0))[0]
    np.testing.assert_allclose(found.sumw, expected)
    density, _ = found.normalised()
    assert (density * np.diff(edges)).sum() == pytest.approx(1)


def test_quantile_is_numpys_for_equal_weights():
    values_N = np.random.default_rng(0).normal(size=101)
    wanted = [0.0, 0.1, 0.5, 0.77, 1.0]
    np.testing.assert_allclose(
        metrics.quantile(values_N, wanted), np.quantile(values_N, wanted, method="inverted_cdf")
    )
    assert metrics.quantile([1.0, 2.0, 3.0], 0.5, [0.1, 0.1, 5.0]) == 3.0


def test_effective_entries():
    assert metrics.effective_entries(np.full(7, 0.3)) == pytest.approx(7)
    assert metrics.effective_entries([1.0, -1.0]) == 0
    assert metrics.effective_entries([]) == 0


def test_scaling_weights_changes_nothing():
    scores_N, signal_N, weights_N = toy(300)
    one, ten = (metrics.rank(scores_N, signal_N, weights_N * k) for k in (1, 10))
    np.testing.assert_allclose(metrics.auc(one), metrics.auc(ten))
    np.testing.assert_allclose(metrics.rejection(one, 0.5)[:2], metrics.rejection(ten, 0.5)[:2])


def test_integer_weights_count_like_copies():
    scores_N, signal_N, _ = toy(200)
    counts_N = np.random.default_rng(0).integers(1, 4, 200)
    weighted = metrics.rank(scores_N, signal_N, counts_N)
    copied = metrics.rank(np.repeat(scores_N, counts_N), np.repeat(signal_N, counts_N))
    assert metrics.auc(weighted).value == pytest.approx(metrics.auc(copied).value)
    assert metrics.rejection(weighted, 0.4).value == pytest.approx(metrics.rejection(copied, 0.4).value)


def test_negative_weights_are_unbiased_and_finite():
    # Each jet has a partner of weight -0.5 at the same score: the same curve as with weight 0.5.
    scores_N, signal_N, _ = toy(2000, weighted=False)
    both = (np.tile(scores_N, 2), np.tile(signal_N, 2), np.repeat([1.0, -0.5], 2000))
    ranking, plain = metrics.rank(*both), metrics.rank(scores_N, signal_N)
    assert metrics.auc(ranking).value == pytest.approx(metrics.auc(plain).value)
    assert metrics.rejection(ranking, 0.5).value == pytest.approx(metrics.rejection(plain, 0.5).value)
    assert metrics.rejection(ranking, 0.5).error > metrics.rejection(plain, 0.5).error


def test_negative_weights_may_bring_an_auc_out_of_its_range_and_it_is_said():
    # The background above the signal weighs -1 of 2 in all: P(signal higher) is (3 - 0) / 2.
    ranking = metrics.rank([0.9, 0.5, 0.1, 0.1, 0.1], [False, True, False, False, False], [-1.0, 1, 1, 1, 1])
    assert metrics.auc(ranking).value == pytest.approx(1.5)
    assert metrics.beyond("AUC", 1.5) == (
        "AUC is 1.5, outside 0 to 1: negative event weights outweigh the others among part of the jets; it is given as"
        " it comes out, not clipped"
    )
    assert metrics.beyond("NLL", -0.25, 0.0, np.inf).startswith("NLL is -0.25, below 0: negative")
    for value in (0.0, 1.0, 1 + 1e-12, -1e-12, np.nan):
        assert metrics.beyond("AUC", value) is None
    figures = [-0.1, 0.0, 1 + 1e-12, 1 + 1e-6, np.nan]
    assert metrics.outside(figures).tolist() == [metrics.beyond("AUC", one) is not None for one in figures]
    assert metrics.outside(figures).tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("weights_N", [[1.0, -2, 1], [1, 1, 0], [1, 1, -1]])
def test_what_cannot_be_ranked(weights_N):
    signal_N = [False, False, True]
    assert metrics.rankable(signal_N)
    assert not metrics.rankable(signal_N, weights_N)
    assert not metrics.rankable([True, True, True])
    with pytest.raises(JettaggerError, match=r"no (signal|background) jets, or their weights do not sum"):
        metrics.rank([0.1, 0.2, 0.3], signal_N, weights_N)


finite = st.floats(-5, 5).map(lambda x: round(x, 2))
jets = st.lists(st.tuples(finite, st.booleans(), st.floats(0.1, 10)), min_size=2, max_size=40).filter(
    lambda rows: len({signal for _, signal, _ in rows}) == 2
)


@given(jets)
@settings(max_examples=60, deadline=None)
def test_auc_keeps_under_monotonic_maps_and_mirrors_under_swaps(rows):
    scores_N, signal_N, weights_N = (np.array(column) for column in zip(*rows, strict=True))
    area = metrics.auc(metrics.rank(scores_N, signal_N, weights_N)).value
    assert metrics.auc(metrics.rank(np.exp(scores_N), signal_N, weights_N)).value == pytest.approx(area)
    assert metrics.auc(metrics.rank(-scores_N, signal_N, weights_N)).value == pytest.approx(1 - area)
    assert metrics.auc(metrics.rank(scores_N, ~signal_N, weights_N)).value == pytest.approx(1 - area)
    expected = sklearn_metrics.roc_auc_score(signal_N, scores_N, sample_weight=weights_N)
    assert area == pytest.approx(expected)


@given(jets, st.floats(0.01, 1.0))
@settings(max_examples=60, deadline=None)
def test_a_working_point_reaches_what_was_wanted_and_no_lower_step_does(rows, wanted):
    scores_N, signal_N, weights_N = (np.array(column) for column in zip(*rows, strict=True))
    point = metrics.rejection(metrics.rank(scores_N, signal_N, weights_N), wanted)
    share_N = weights_N[signal_N] / weights_N[signal_N].sum()
    passing = share_N[scores_N[signal_N] >= point.threshold].sum()
    above = share_N[scores_N[signal_N] > point.threshold].sum()
    assert passing == pytest.approx(point.signal_efficiency)
    assert passing >= wanted - 1e-9
    assert above < wanted + 1e-9


def test_one_jet_a_side_has_figures_and_undefined_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranking = metrics.rank([1.0, 0.0], [True, False])
        assert metrics.auc(ranking).value == 1.0
        assert np.isnan(metrics.auc(ranking).error)
        assert metrics.rejection(ranking, 0.5).value is None
