"""Quoted errors against the spread of many toys, for the weights that analyses have: spread wide, some negative."""

import numpy as np
import pytest

from jettagger import metrics

TOYS, JETS = 300, 1500
FIGURES = {
    "accuracy": lambda p, y, w: metrics.accuracy(p, y, w),
    "nll": lambda p, y, w: metrics.nll(p, y, w),
    "brier": lambda p, y, w: metrics.brier(p, y, w),
    "auc": lambda p, y, w: metrics.auc(metrics.rank(p[:, 1], y == 1, w)),
    "background efficiency": lambda p, y, w: _background(metrics.rank(p[:, 1], y == 1, w)),
    "a cell of the confusion": lambda p, y, w: _cell(metrics.confusion(p, y, w)),
    "efficiency": lambda p, y, w: metrics.efficiency(p[y == 1, 1] > 0.7, w[y == 1]),
}


def _background(ranking):
    """At a fixed threshold: the quoted error takes the threshold as given."""
    passing = ranking.background_score_B > 0.7
    return metrics.efficiency(passing, ranking.background_weight_B)


def _cell(confusion):
    return metrics.Measurement(confusion.fraction_CC[0, 1], confusion.error_CC[0, 1])


def weights(kind, rng):
    if kind == "negative":  # as of a generator at next-to-leading order
        return np.where(rng.uniform(size=JETS) < 0.15, -1.0, 1.0)
    return rng.lognormal(sigma=1.0, size=JETS)


@pytest.fixture(scope="module", params=["wide", "negative"])
def toys(request):
    """Probabilities, labels and weights of many samples of one tagger."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(TOYS):
        labels_N = rng.integers(0, 2, JETS)
        signal_N = 1 / (1 + np.exp(-rng.normal(2 * labels_N - 1, 1.4)))
        found.append((np.stack([1 - signal_N, signal_N], 1), labels_N, weights(request.param, rng)))
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_errors_of_weighted_figures_are_the_spread_of_toys(toys, name):
    values, errors = np.array([FIGURES[name](*toy) for toy in toys]).T
    assert np.isfinite(errors).all()
    # 300 toys give a spread to 4 %; errors themselves fluctuate with the weights.
    assert np.median(errors) == pytest.approx(values.std(), rel=0.15)


def test_weights_that_cancel_leave_few_effective_entries(toys):
    _, _, weights_N = toys[0]
    entries = metrics.effective_entries(weights_N)
    assert entries == pytest.approx(weights_N.sum() ** 2 / (weights_N**2).sum())
    assert entries < 0.6 * JETS
