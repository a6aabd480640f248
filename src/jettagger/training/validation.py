"""What a network in training is worth on the validation jets.

Shapes: B jets of a batch, N jets of all, S batches, C classes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jettagger.batch import Batch, Inputs
from jettagger.errors import JettaggerError
from jettagger.metrics import macro_auc, rank
from jettagger.training.device import Hardware
from jettagger.training.distribution import Ranks
from jettagger.training.loss import check_labels, cross_entropy

Array = NDArray[Any]


@dataclass(frozen=True)
class Validation:
    """Weighted figures of the validation jets."""

    loss: float
    """Cross-entropy without label smoothing, Σ w·l / Σ w."""
    accuracy: float
    auc: float | None
    """One-vs-rest macro beyond two classes; None where it is undefined."""
    bad: int | None
    """The number of the first batch whose loss is not finite, from 0."""


class _Part(NamedTuple):
    """What one rank found: sums over its part of each of S batches, and its jets' scores."""

    losses_S: Tensor
    weights_S: Tensor
    right_S: Tensor
    scores_NC: Array
    labels_N: Array
    weights_N: Array


@torch.no_grad()
def validate(
    network: Callable[[Inputs], Tensor],
    batches: Iterable[Batch],
    hardware: Hardware,
    ranks: Ranks = Ranks(),  # noqa: B008 - it is immutable
) -> Validation:
    """Runs the network, which is in evaluation mode, over all batches; each rank has its part of them.

    Rank 0 gets the scores of all jets, so that the figures are those of one process.
    """
    part = _scored(network, batches, hardware)
    parts = ranks.gathered(part)
    return ranks.first_does(lambda: _figures(parts or []))


def _scored(network: Callable[[Inputs], Tensor], batches: Iterable[Batch], hardware: Hardware) -> _Part:
    losses, weights, right, scores = [], [], [], []
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
        scores.append((logits_BC.float().softmax(1), batch.labels_B, batch.weights_B))
    losses_S, weights_S, right_S = (torch.stack(x).cpu() for x in (losses, weights, right))
    scores_NC, labels_N, weights_N = (torch.cat(x).cpu().numpy() for x in zip(*scores, strict=True))
    return _Part(losses_S, weights_S, right_S, scores_NC, labels_N, weights_N)


def _figures(parts: list[_Part]) -> Validation:
    sums = [float(sum(x.double().sum() for x in column)) for column in list(zip(*parts, strict=True))[:3]]
    finite_S = torch.stack([torch.isfinite(part.losses_S) for part in parts]).all(0).tolist()
    bad = None if all(finite_S) else finite_S.index(False)
    if sums[1] <= 0:
        raise JettaggerError(
            f"the weights of the validation jets add up to {sums[1]:.4g}: check weights.event"
        )
    jets = (np.concatenate(column) for column in list(zip(*parts, strict=True))[3:])
    area = None if bad is not None else _auc(*jets)
    return Validation(loss=sums[0] / sums[1], accuracy=sums[2] / sums[1], auc=area, bad=bad)


def _auc(scores_NC: Array, labels_N: Array, weights_N: Array) -> float | None:
    """Each class against the rest, averaged; with two classes the second against the first."""
    classes = [1] if scores_NC.shape[1] == 2 else list(range(scores_NC.shape[1]))
    for c in classes:
        for side_N in (labels_N == c, labels_N != c):
            if weights_N[side_N].sum() <= 0:
                return None
    return macro_auc([rank(scores_NC[:, c], labels_N == c, weights_N) for c in classes]).value
