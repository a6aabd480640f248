"""What a network in training is worth on the validation jets.

Shapes: B jets of a batch, N jets of all, C classes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from jettagger.batch import Batch, Inputs
from jettagger.errors import JettaggerError
from jettagger.training.device import Hardware
from jettagger.training.loss import check_labels, cross_entropy


@dataclass(frozen=True)
class Validation:
    """Weighted figures of the validation jets."""

    loss: float
    """Cross-entropy without label smoothing, Σ w·l / Σ w."""
    accuracy: float
    auc: float | None
    """One-vs-rest macro beyond two classes; None where it is undefined."""
    bad: Batch | None
    """The first batch whose loss is not finite."""


@torch.no_grad()
def validate(network: Callable[[Inputs], Tensor], batches: Iterable[Batch], hardware: Hardware) -> Validation:
    """Runs the network, which is in evaluation mode, over all batches."""
    losses, weights, right = [], [], []
    bad = None
    for given in batches:
        batch = given.to(hardware.device)
        with hardware.autocast():
            logits_BC = network(batch.inputs)
        if given.labels_B.is_cpu:
            check_labels(given, logits_BC.shape[1])
        loss = cross_entropy(logits_BC, batch.labels_B, batch.weights_B, smoothing=0.0)
        right_B = logits_BC.argmax(1) == batch.labels_B
        losses.append(loss.losses)
        weights.append(loss.weights)
        right.append((batch.weights_B * right_B).sum())
        if bad is None and not torch.isfinite(loss.losses):
            bad = batch
    sums = [float(torch.stack(x).double().sum()) for x in (losses, weights, right)]
    if sums[1] <= 0:
        raise JettaggerError(f"the weights of the validation jets add up to {sums[1]:.4g}: check weights.event")
    return Validation(loss=sums[0] / sums[1], accuracy=sums[2] / sums[1], auc=None, bad=bad)
