"""Temperature scaling on labels whose truth is known."""

import numpy as np
import pytest

from jettagger.uncertainty.calibration import COLDEST, fit_temperature, scaled_probabilities


def drawn(temperature, jets=20_000, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    z_NC = generator.normal(0, 2, (jets, classes))
    p_NC = scaled_probabilities(z_NC, temperature)
    return z_NC, (p_NC.cumsum(1) < generator.random((jets, 1))).sum(1).astype(np.int64), p_NC


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_labels_drawn_at_a_temperature_give_it_back(temperature):
    z_NC, labels_N, p_NC = drawn(temperature)
    fitted = fit_temperature(z_NC, labels_N)
    # Fisher information of ln T: N Var_p(z / T).
    variance = ((p_NC * z_NC**2).sum(1) - (p_NC * z_NC).sum(1) ** 2).mean() / temperature**2
    assert np.log(fitted / temperature) == pytest.approx(0, abs=4 / np.sqrt(len(z_NC) * variance))


def test_weights_choose_the_jets_that_count():
    cold, cold_labels, _ = drawn(0.7, jets=3000)
    hot, hot_labels, _ = drawn(2.0, jets=3000, seed=1)
    z_NC, labels_N = np.r_[cold, hot], np.r_[cold_labels, hot_labels]
    weights_N = np.r_[np.ones(len(cold)), np.zeros(len(hot))]
    assert fit_temperature(z_NC, labels_N, weights_N) == pytest.approx(fit_temperature(cold, cold_labels))
    integer_N = np.r_[np.full(len(cold), 3.0), np.ones(len(hot))]
    repeated = fit_temperature(np.r_[cold, cold, z_NC], np.r_[cold_labels, cold_labels, labels_N])
    assert fit_temperature(z_NC, labels_N, integer_N) == pytest.approx(repeated)


def test_unknown_labels_are_left_out():
    z_NC, labels_N, _ = drawn(2.0, jets=2000)
    labels_N[::2] = -1
    assert fit_temperature(z_NC, labels_N) == pytest.approx(fit_temperature(z_NC[1::2], labels_N[1::2]))


def test_perfect_logits_reach_the_bound():
    z_NC = np.eye(2)[[0, 1, 0]] * 4
    assert fit_temperature(z_NC, np.array([0, 1, 0])) == pytest.approx(COLDEST, rel=1e-6)


def test_rankings_do_not_change():
    z_NC, _, _ = drawn(1.0, jets=1000, classes=2)
    scores = [scaled_probabilities(z_NC, t)[:, 0].argsort().tolist() for t in (0.5, 1.0, 4.0)]
    assert scores[0] == scores[1] == scores[2]


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite logits"):
        fit_temperature(np.array([[np.nan, 1.0]]), np.array([0]))
