"""Weighted cross-entropy against hand values, and its weights."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from jettagger.batch import Batch, Inputs
from jettagger.errors import JettaggerError
from jettagger.outputs.description import plain
from jettagger.outputs.schema import ClassLossSection
from jettagger.training.loss import WeightedLoss, check_labels
from jettagger.training.objective import Objective
from memory import make_jets

LOGITS = torch.tensor([[2.0, 0.0], [0.5, -1.0], [0.0, 3.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1])
WEIGHTS = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, smoothing: float
) -> WeightedLoss:
    truth = Batch(Inputs(None, {}), labels, weights, torch.arange(len(labels)))
    return Objective(plain(2), ClassLossSection(), smoothing)(logits, truth)


def test_against_scikit_learn() -> None:
    expected = log_loss(LABELS, LOGITS.softmax(1), sample_weight=WEIGHTS)
    assert cross_entropy(LOGITS, LABELS, WEIGHTS, 0.0).step.item() == pytest.approx(expected, abs=1e-12)


def test_label_smoothing() -> None:
    p = LOGITS.softmax(1).numpy()
    targets = 0.8 * np.eye(2)[LABELS] + 0.2 / 2
    expected = -(WEIGHTS.numpy()[:, None] * targets * np.log(p)).sum() / 3.5
    assert cross_entropy(LOGITS, LABELS, WEIGHTS, 0.2).step.item() == pytest.approx(expected, abs=1e-12)


def test_a_doubled_weight_is_a_doubled_jet() -> None:
    twice = [0, 1, 1, 2]
    ones = torch.ones(3, dtype=torch.float64)
    single = LOGITS.clone().requires_grad_()
    weighted = cross_entropy(single, LABELS, torch.tensor([1.0, 2.0, 1.0]).double(), 0.1).step
    copies = LOGITS.clone().requires_grad_()
    copied = cross_entropy(copies[twice], LABELS[twice], ones[[0, 0, 0, 0]], 0.1).step
    assert weighted.item() == pytest.approx(copied.item(), abs=1e-14)
    weighted.backward()
    copied.backward()
    torch.testing.assert_close(single.grad, copies.grad, rtol=0, atol=1e-14)


def test_negative_weights_keep_the_direction_of_the_others() -> None:
    weights = torch.tensor([1.0, 1.0, -3.0], dtype=torch.float64)
    logits = LOGITS.clone().requires_grad_()
    loss = cross_entropy(logits, LABELS, weights, 0.0)
    loss.step.backward()
    assert logits.grad is not None
    assert loss.weights.item() == -1.0
    # The first jet's own logit is still pushed up, although the weights add up to less than 0.
    assert logits.grad[0, 0] == pytest.approx((LOGITS[0].softmax(0)[0].item() - 1) / 5)
    assert logits.grad[2, 1] > 0


def test_a_batch_without_weight_moves_nothing() -> None:
    logits = LOGITS.clone().requires_grad_()
    cross_entropy(logits, LABELS, torch.zeros(3).double(), 0.0).step.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_bfloat16_logits_are_summed_in_float32() -> None:
    loss = cross_entropy(LOGITS.bfloat16(), LABELS, WEIGHTS.float(), 0.0)
    assert loss.losses.dtype == torch.float32
    assert math.isfinite(loss.step.item())


def test_unlabelled_jets_are_refused() -> None:
    jets = make_jets()
    jets.labels_J[[3, 5]] = -1
    with pytest.raises(JettaggerError, match=r"2 of 96 jets in a batch have no class \(such as 3, 5\)"):
        check_labels(jets.batch(torch.arange(96)), ("QCD", "Top"))
    jets.labels_J[[3, 5]] = 2
    with pytest.raises(JettaggerError, match="a jet has label 2, but the network has 2 classes"):
        check_labels(jets.batch(torch.arange(96)), ("QCD", "Top"))
    check_labels(jets.batch(torch.arange(0)), ("QCD", "Top"))
