"""Toy predictions with everything that a report draws."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from jettagger.evaluation.predictions import Predictions
from jettagger.uncertainty.decomposition import decompose

EPOCHS = np.arange(1, 13)


def predictions(name="net", classes=("QCD", "Top"), jets=1500, members=3, weights=None, **more):
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, len(classes), jets)
    labels_N[: len(classes)] = np.arange(len(classes))
    truth_NC = rng.normal(size=(jets, len(classes))) + 2 * np.eye(len(classes))[labels_N]
    noise = np.random.default_rng(list(name.encode())).normal(size=(members, jets, len(classes)))
    exponential = np.exp(2 * truth_NC + noise)
    members_MNC = exponential / exponential.sum(-1, keepdims=True)
    losses = 0.2 + 0.3 * np.exp(-EPOCHS / 3)
    epochs = [
        {"epoch": int(k), "train_loss": loss, "validation_loss": loss + 0.01, "learning_rate": 1.0e-3}
        for k, loss in zip(EPOCHS, losses, strict=True)
    ]
    run = Predictions(
        name=name,
        classes=tuple(classes),
        labels_N=labels_N,
        weights_N=np.ones(jets) if weights is None else weights,
        decomposition=decompose(members_MNC),
        members_MNC=members_MNC.astype(np.float32) if members > 1 else None,
        spectators={"jet_pt": rng.uniform(500, 700, jets), "jet_sdmass": rng.exponential(60, jets)},
        history=[epochs] * members,
    )
    return replace(run, **more)


@pytest.fixture(scope="session")
def make_predictions():
    return predictions


@pytest.fixture
def make_cut():
    def cut(name="cut", **more):
        net = predictions(name, **more)
        scores_N = np.where(
            np.arange(len(net.labels_N)) % 3, net.decomposition.probabilities_NC[:, -1], -np.inf
        )
        return replace(net, scores_N=scores_N, decomposition=None, members_MNC=None, history=())

    return cut


@pytest.fixture(autouse=True)
def _style_is_left_alone():
    """No figure may change matplotlib's settings, nor register itself with pyplot."""
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
