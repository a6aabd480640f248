"""Members' probabilities and their health."""

import numpy as np
import torch

from jettagger import models
from jettagger.batch import Feature, Inputs, InputSpec
from jettagger.uncertainty.ensemble import (
    MemberHealth,
    median_decomposition,
    member_health,
    member_probabilities,
)


def member(seed):
    config = models.config_class("mlp").model_validate({"widths": [8], "dropout": 0.2, "norm": "batch"})
    return models.build(config, InputSpec((Feature("x"),)), 2, torch.Generator().manual_seed(seed))


def test_members_answer_in_evaluation_mode():
    members = [member(seed).train() for seed in range(3)]
    inputs = Inputs(torch.linspace(-1, 1, 7).unsqueeze(1), {})
    p_MBC = member_probabilities(members, inputs)
    assert p_MBC.shape == (3, 7, 2)
    assert p_MBC.dtype == np.float64
    assert np.allclose(p_MBC.sum(-1), 1, atol=1e-15)
    assert all(model.training for model in members)
    with torch.no_grad():
        assert np.allclose(p_MBC[1], members[1].eval()(inputs).double().softmax(-1).numpy())


def test_unsound_members_are_named():
    generator = np.random.default_rng(0)
    labels_N = generator.integers(0, 2, 1000)
    good_N = np.clip(0.5 + 0.3 * (labels_N - 0.5) + 0.2 * generator.normal(size=1000), 0.01, 0.99)
    scores = [good_N, np.full(1000, 0.5), np.where(np.arange(1000) == 7, np.nan, good_N), 1 - good_N]
    p_MNC = np.stack([np.stack([1 - s, s], 1) for s in scores])
    assert member_health(p_MNC, labels_N) == [
        MemberHealth(0, None),
        MemberHealth(1, "constant"),
        MemberHealth(2, "not finite"),
        MemberHealth(3, "no better than the class fractions"),
    ]
    assert [health.problem for health in member_health(p_MNC)] == [None, "constant", "not finite", None]


def test_fractions_that_are_none_say_nothing_of_health():
    p_MNC = np.random.default_rng(0).dirichlet([1, 1], (1, 20))
    labels_N = np.arange(20) % 2
    assert member_health(p_MNC, labels_N, np.where(labels_N == 1, -0.5, 1.0))[0].problem is None


def test_unknown_labels_say_nothing_of_health():
    p_MNC = np.random.default_rng(0).dirichlet([1, 1], (1, 20))
    assert member_health(p_MNC, np.full(20, -1))[0].problem is None


def test_a_failed_member_moves_the_mean_and_not_the_median():
    generator = np.random.default_rng(3)
    good_MN = np.clip(0.8 + 0.02 * generator.normal(size=(4, 50)), 0, 1)
    p_MN = np.concatenate([good_MN, np.zeros((1, 50))])
    found = median_decomposition(np.stack([1 - p_MN, p_MN], axis=-1))
    assert np.allclose(found.probabilities_NC[:, 1], np.median(p_MN, axis=0), atol=1e-12)
    assert np.abs(found.probabilities_NC[:, 1] - 0.8).max() < 0.06 < np.abs(p_MN.mean(0) - 0.8).min()
    assert found.samples == 5
    assert (found.std_NC > 0.1).all()


def test_medians_of_three_classes_are_probabilities():
    p_MNC = np.random.default_rng(4).dirichlet([0.3] * 3, (5, 200))
    found = median_decomposition(p_MNC).probabilities_NC
    assert np.allclose(found.sum(-1), 1, atol=1e-12)
    confident = np.eye(3)[:, None, :]  # three members, each sure of another class: all medians are 0
    assert np.allclose(median_decomposition(confident).probabilities_NC, 1 / 3)
