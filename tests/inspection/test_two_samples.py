"""Distances, significances and the classifier test where the answer is known."""

import numpy as np
import pytest

from jettagger.inspection.classifier_test import classifier_test
from jettagger.inspection.comparison import chi_squared, ks_distance, variable_gap
from jettagger.inspection.correlations import correlation, gaps
from jettagger.inspection.spectra import Values, count, edges_of


def values(x, weights=None, jets=None):
    return Values("x", np.asarray(x, float), np.ones(len(x)) if weights is None else weights, jets)


def gap(a, b):
    entries = tuple(float(v.weights_R.sum() ** 2 / (v.weights_R**2).sum()) for v in (a, b))
    return variable_gap(a, b, "jet", entries)


def test_distance_of_shifted_gaussians():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 200_000), rng.normal(0.5, 1, 200_000)
    # Largest at the middle: Φ(1/4) − Φ(−1/4).
    assert ks_distance(values(a), values(b)) == pytest.approx(0.19741, abs=0.005)
    assert gap(values(a[:5000]), values(b[:5000])).ks_p < 1e-15


def test_distance_with_weights_is_that_of_the_reweighted_sample():
    rng = np.random.default_rng(2)
    flat, wanted = rng.uniform(-4, 5, 60_000), rng.normal(0.5, 1, 60_000)
    weights = np.exp(-((flat - 0.5) ** 2) / 2)
    found = gap(values(flat, weights), values(wanted))
    assert found.ks < 0.012
    assert found.ks_p > 1e-3
    assert found.chi2_p > 1e-3
    assert gap(values(flat), values(wanted)).ks_p < 1e-15


def test_distance_by_hand():
    assert ks_distance(values([1, 2, 3, 4]), values([3, 4, 5, 6])) == 0.5
    assert ks_distance(values([1, np.nan, 2]), values([1, 2])) == 0.0
    assert ks_distance(values([0, 1], np.array([3.0, 1.0])), values([0, 1])) == 0.25


@pytest.mark.parametrize("weighted", [False, True])
def test_p_values_of_equal_samples_are_uniform(weighted):
    ks, chi2 = [], []
    for seed in range(200):
        rng = np.random.default_rng([3, seed])
        weights = rng.uniform(0.2, 1.8, 400) if weighted else np.ones(400)
        found = gap(values(rng.normal(size=400), weights), values(rng.normal(size=600)))
        ks.append(found.ks_p)
        chi2.append(found.chi2_p)
    # 200 seeds: 10 ± 3 expected below 0.05.
    assert 2 <= sum(p < 0.05 for p in ks) <= 20
    assert 2 <= sum(p < 0.05 for p in chi2) <= 20
    assert 0.4 < np.mean(chi2) < 0.6


def test_chi_squared_by_hand():
    a = (np.array([0.5, 0.5]), np.array([0.05, 0.05]))
    b = (np.array([0.4, 0.6]), np.array([0.0, 0.0]))
    assert chi_squared(a, b, (100.0, 100.0)) == (pytest.approx(8.0), 1)


def test_errors_of_particles_count_jets():
    jets = np.repeat(np.arange(100), 10)
    edges = np.array([0.0, 1.0, 2.0])
    same = count(values(np.full(1000, 0.5), jets=jets), edges)
    assert same.error_B.tolist() == [100.0, 0.0]  # √(100 · 10²), not √1000
    assert count(values(np.full(1000, 0.5)), edges).error_B[0] == pytest.approx(np.sqrt(1000))


def test_bins_of_whole_numbers_hold_equally_many():
    edges = edges_of([np.arange(10, 130.0).repeat(20)])
    assert np.unique(np.diff(edges)).tolist() == [3.0]
    assert edges[0] % 1 == 0.5
    assert edges_of([np.array([0.0, 1, 1, 0, 2])]).tolist() == [-0.5, 0.5, 1.5, 2.5]


def test_planted_correlation_and_its_error():
    rng = np.random.default_rng(4)
    x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 20_000).T
    table = np.stack([x, y, np.full(20_000, 3.0)], 1)
    found = correlation(["x", "y", "c"], table, np.ones(20_000))
    assert found.matrix_VV[0, 1] == pytest.approx(0.6, abs=0.02)
    assert np.isnan(found.matrix_VV[0, 2])
    assert found.z_error_VV[0, 1] == pytest.approx(1 / np.sqrt(20_000), rel=0.05)
    weights = rng.uniform(0, 2, 20_000)
    assert correlation(["x", "y"], table[:, :2], weights).matrix_VV[0, 1] == pytest.approx(
        np.cov(x, y, aweights=weights)[0, 1] / np.sqrt(np.prod(np.diag(np.cov(x, y, aweights=weights)))),
        abs=1e-9,
    )


def test_missing_values_leave_the_correlation_of_the_others():
    rng = np.random.default_rng(5)
    x, y = rng.multivariate_normal([2, -1], [[1, -0.4], [-0.4, 1]], 4000).T
    table = np.stack([x, y], 1)
    known = rng.uniform(size=4000) > 0.3
    expected = np.corrcoef(table[known].T)[0, 1]
    table[~known, 1] = np.nan
    assert correlation(["x", "y"], table, np.ones(4000)).matrix_VV[0, 1] == pytest.approx(expected, abs=1e-9)


def test_significance_of_correlations_has_unit_width_also_for_heavy_tails():
    significances = []
    for seed in range(150):
        rng = np.random.default_rng([6, seed])
        tables = [np.exp(rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 2000) / 2) for _ in range(2)]
        found = gaps(*(correlation(["x", "y"], t, np.ones(2000)) for t in tables))
        significances.append(found[0].significance)
    assert abs(np.mean(significances)) < 0.3
    assert 0.8 < np.std(significances) < 1.25


def test_a_different_correlation_is_found():
    rng = np.random.default_rng(7)
    a = rng.multivariate_normal([0, 0, 0], np.eye(3), 3000)
    b = rng.multivariate_normal([0, 0, 0], [[1, 0.2, 0], [0.2, 1, 0], [0, 0, 1]], 3000)
    found = gaps(*(correlation(["x", "y", "z"], t, np.ones(3000)) for t in (a, b)))
    assert (found[0].first, found[0].second) == ("x", "y")
    assert found[0].significance > 5
    assert abs(found[1].significance) < 4


def table(seed, shift=0.0, jets=300):
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(jets, 3)).astype(np.float32)
    columns[:, 1] += shift
    return columns


def run(first, second, weights=None, **options):
    if weights is None:
        weights = np.ones(len(first)), np.ones(len(second))
    groups = np.arange(len(first)), np.arange(len(second))
    return classifier_test(["a", "b", "c"], (first, second), weights, groups, **options)


def test_the_classifier_finds_the_variable_that_differs():
    found = run(table(1, jets=1500), table(2, 0.6, jets=1500))
    assert found.auc == pytest.approx(0.664, abs=0.05)  # Φ(0.6/√2) at best
    assert found.p_value < 0.01
    assert found.variables[0].name == "b"
    assert found.variables[0].loss > 3 * found.variables[0].error


def test_the_classifier_finds_a_correlation_that_no_variable_shows():
    rng = np.random.default_rng(8)
    a = rng.normal(size=(1500, 3)).astype(np.float32)
    b = rng.multivariate_normal([0, 0, 0], [[1, 0.8, 0], [0.8, 1, 0], [0, 0, 1]], 1500).astype(np.float32)
    found = run(a, b)
    assert found.p_value < 0.01
    assert {one.name for one in found.variables[:2]} == {"a", "b"}


def test_weights_that_undo_a_shift_make_samples_alike():
    a, b = table(9, jets=3000), table(10, 0.5, jets=3000)
    undo = np.exp(-0.5 * b[:, 1] + 0.125)
    assert run(a, b).p_value < 0.01
    assert run(a, b, (np.ones(3000), undo.astype(float))).auc == pytest.approx(0.5, abs=0.03)


@pytest.mark.slow
def test_the_classifier_is_rarely_wrong_about_equal_samples():
    found = [run(table(100 + seed), table(500 + seed), seed=seed) for seed in range(24)]
    assert np.mean([one.auc for one in found]) == pytest.approx(0.5, abs=0.02)
    assert sum(one.p_value < 0.05 for one in found) <= 4  # 1.2 expected
    pulls = [(one.auc - 0.5) / one.error for one in found]
    assert 0.6 < np.std(pulls) < 1.5


def test_the_classifier_needs_jets_and_weights():
    assert run(table(1, jets=50), table(2)) is None
    assert run(table(1), table(2), (np.ones(300), -np.ones(300))) is None
