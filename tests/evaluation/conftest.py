"""Toy predictions that look like a tagger's."""

import numpy as np
import pytest

from jettagger.evaluation.predictions import Predictions
from jettagger.uncertainty.decomposition import decompose


def softmax(logits):
    exponential = np.exp(logits - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def make(name="net", classes=("QCD", "Top"), jets=3000, members=3, seed=0, noise=0.5, weights=None, **more):
    """Labels and spectators are the same for each name and noise; the members' logits differ."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, len(classes), jets)
    labels_N[: len(classes)] = np.arange(len(classes))
    truth_NC = rng.normal(size=(jets, len(classes))) + 2 * np.eye(len(classes))[labels_N]
    spectators = {"jet_pt": rng.uniform(500, 700, jets), "jet_sdmass": rng.exponential(60, jets)}
    noise_rng = np.random.default_rng([seed, *name.encode()])
    logits_MNC = truth_NC + noise * noise_rng.normal(size=(members, *truth_NC.shape))
    members_MNC = softmax(2 * logits_MNC)
    return Predictions(
        **{
            "name": name,
            "classes": tuple(classes),
            "labels_N": labels_N,
            "weights_N": np.ones(jets) if weights is None else weights,
            "decomposition": decompose(members_MNC),
            "members_MNC": members_MNC.astype(np.float32) if members > 1 else None,
            "spectators": spectators,
            **more,
        }
    )


def cut(name="cut", jets=3000, seed=0):
    """A discriminant without probabilities; a third of the jets are thrown away with -inf."""
    net = make(name, jets=jets, seed=seed)
    scores_N = net.decomposition.probabilities_NC[:, 1].copy()
    scores_N[::3] = -np.inf
    return Predictions(name, net.classes, net.labels_N, net.weights_N, scores_N, spectators=net.spectators)


@pytest.fixture
def make_predictions():
    return make


@pytest.fixture
def make_cut():
    return cut
