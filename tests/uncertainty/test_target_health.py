"""Which members have not learned a regression target."""

import numpy as np
import pytest

from jettagger.uncertainty.target_health import far_off, target_health

TRUTH_N = np.random.default_rng(3).normal(80, 10, 400)
ONES_N = np.ones(400)


def noisy(width, seed=1):
    return TRUTH_N + np.random.default_rng(seed).normal(0, width, 400)


@pytest.mark.parametrize(
    ("value_N", "problem"),
    [
        (noisy(5), None),
        (np.where(np.arange(400) == 7, np.nan, noisy(5)), "not finite"),
        (np.where(np.arange(400) == 7, np.inf, noisy(5)), "not finite"),
        (np.full(400, 80.0), "constant"),
        (80 + 1e-6 * np.random.default_rng(0).random(400), "constant"),
        (noisy(30), "no better than a constant"),
        (noisy(5) + 100, "no better than a constant"),
    ],
)
def test_each_problem_is_found(value_N, problem):
    assert target_health(value_N, TRUTH_N, ONES_N).problem == problem


def test_a_small_target_is_not_taken_for_a_constant():
    truth_N = 1e-4 * (TRUTH_N - 80)
    assert target_health(truth_N + 1e-5, truth_N, ONES_N).problem is None
    assert target_health(np.full(400, 0.1), truth_N, ONES_N).problem == "constant"


def test_a_median_need_not_be_good_at_squares():
    # A tail of one jet in ten: the median of the others is near them, and far from the tail's mean.
    rng = np.random.default_rng(5)
    kind_N, tail_N = rng.integers(0, 2, 4000), rng.random(4000) < 0.1
    truth_N = kind_N + 0.1 * rng.normal(size=4000) + 60 * tail_N
    found = target_health(kind_N.astype(float), truth_N, np.ones(4000))
    assert ((kind_N - truth_N) ** 2).mean() > truth_N.var()
    assert found.problem is None


def test_weights_and_unknown_truths():
    value_N = noisy(5)
    truth_N = np.where(np.arange(400) < 100, np.nan, TRUTH_N)
    weights_N = np.where(np.arange(400) < 200, 0.0, 2.0)
    found = target_health(value_N, truth_N, weights_N)
    assert found.deviation == pytest.approx(np.abs(value_N - TRUTH_N)[200:].mean())
    nothing = target_health(value_N, np.full(400, np.nan), ONES_N)
    assert (np.isnan(nothing.deviation), nothing.problem) == (True, None)
    assert target_health(value_N, TRUTH_N, -ONES_N).problem is None


def test_far_off_is_seen_among_three_or_more():
    assert far_off(np.array([1.0, 1.02, 1.5])).tolist() == [False, False, True]
    assert far_off(np.array([1.0, 1.02, 1.08])).tolist() == [False, False, False], "less than a tenth"
    assert far_off(np.array([1.0, 1.3, 0.7, 1.5])).tolist() == [False] * 4, "they scatter so"
    assert far_off(np.array([1.0, np.nan, 1.0, 1.5])).tolist() == [False, False, False, True]
    assert not far_off(np.array([1.0, 9.0])).any()


def test_negative_weights_hide_no_member_that_is_far_off():
    # The fourth is wrong where weights are negative: with their signs its mean deviation would be the smallest.
    weights_N = np.where(np.arange(400) % 4 == 0, -1.0, 1.0)
    wrong_N = np.where(weights_N < 0, TRUTH_N + 40, noisy(5))
    values = [noisy(5, seed) for seed in (1, 2, 3)] + [wrong_N]
    deviations_M = np.array([target_health(one, TRUTH_N, weights_N).deviation for one in values])
    assert (np.abs(wrong_N - TRUTH_N) @ weights_N) < 0 < deviations_M.min()
    assert far_off(deviations_M).tolist() == [False, False, False, True]
