"""Identities that hold for any set of members."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettagger.uncertainty.decomposition import Accumulator, decompose, entropy


def members(number, jets=50, classes=3, seed=0, spread=1.0):
    z_MNC = np.random.default_rng(seed).normal(0, spread, (number, jets, classes))
    return np.exp(z_MNC) / np.exp(z_MNC).sum(-1, keepdims=True)


def test_variance_split():
    """p(1 - p) = mean p(1 - p) + Var p, exactly."""
    p_MNC = members(5)
    result = decompose(p_MNC)
    mean_NC = result.probabilities_NC
    variance_NC = result.std_NC**2 * 4 / 5
    assert mean_NC * (1 - mean_NC) == pytest.approx((p_MNC * (1 - p_MNC)).mean(0) + variance_NC, abs=1e-14)


def test_brier_of_the_mean():
    """Brier(mean) = mean Brier - mean |p - mean|²."""
    p_MNC = members(5)
    labels_N = np.random.default_rng(1).integers(0, 3, 50)
    y_NC = np.eye(3)[labels_N]
    mean_NC = decompose(p_MNC).probabilities_NC
    spread = ((p_MNC - mean_NC) ** 2).sum(-1).mean()
    assert ((mean_NC - y_NC) ** 2).sum(-1).mean() == pytest.approx(
        ((p_MNC - y_NC) ** 2).sum(-1).mean() - spread
    )


def test_likelihood_of_the_mean_is_better_than_the_mean_likelihood():
    p_MNC = members(5)
    labels_N = np.random.default_rng(1).integers(0, 3, 50)
    own_MN = np.take_along_axis(p_MNC, labels_N[None, :, None], 2)[..., 0]
    mean_NC = decompose(p_MNC).probabilities_NC
    assert (-np.log(mean_NC[np.arange(50), labels_N]) <= -np.log(own_MN).mean(0) + 1e-12).all()


def test_mutual_information_at_its_extremes():
    agree = decompose(np.tile([[[0.3, 0.7]]], (4, 1, 1)))
    assert agree.mutual_information_N == pytest.approx(0, abs=1e-15)
    certain = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    disagree = decompose(certain)
    assert disagree.total_entropy_N == pytest.approx(np.log(2))
    assert disagree.expected_entropy_N == pytest.approx(0)
    assert disagree.mutual_information_N == pytest.approx(2 * np.log(2)), "M / (M - 1) = 2"


def test_mutual_information_of_few_members_is_comparable_with_that_of_many():
    """E[total - expected] = MI (1 - 1/M): with M / (M - 1), five members and a thousand agree."""
    few = np.mean([decompose(members(5, seed=s, spread=0.3)).mutual_information_N.mean() for s in range(100)])
    many = decompose(members(4000, seed=1, spread=0.3)).mutual_information_N.mean()
    assert few == pytest.approx(many, rel=0.03)


def test_single_member_has_no_spread():
    result = decompose(members(1))
    assert not result.std_NC.any()
    assert not result.mutual_information_N.any()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 1000))
def test_chunks_of_any_size_give_the_same(sizes, seed):
    p_MNC = members(sum(sizes), jets=4, seed=seed)
    accumulator = Accumulator()
    for chunk_MNC in np.split(p_MNC, np.cumsum(sizes)[:-1]):
        accumulator.add_many(chunk_MNC)
    result = accumulator.result()
    assert result.samples == sum(sizes)
    assert result.probabilities_NC == pytest.approx(p_MNC.mean(0))
    if sum(sizes) > 1:
        assert result.std_NC == pytest.approx(p_MNC.std(0, ddof=1), abs=1e-12)
    assert result.expected_entropy_N == pytest.approx(entropy(p_MNC).mean(0))


def test_tiny_spreads_survive():
    p_MNC = 0.5 + 1e-9 * np.random.default_rng(0).normal(size=(100, 1, 1)) * np.array([1, -1])
    accumulator = Accumulator()
    for p_NC in p_MNC:
        accumulator.add(p_NC)
    assert accumulator.result().std_NC == pytest.approx(p_MNC.std(0, ddof=1), rel=1e-5)


def test_nothing_added_is_an_error():
    with pytest.raises(ValueError, match="no member was added"):
        Accumulator().result()
