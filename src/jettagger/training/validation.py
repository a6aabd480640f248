"""What a network in training is worth on the validation jets.

Shapes: B jets of a batch, N jets of all, S batches, K output columns, C classes, T targets.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jettagger import metrics
from jettagger.batch import Batch, Inputs
from jettagger.errors import JettaggerError
from jettagger.metrics import macro_auc, rank, rankable
from jettagger.training.device import Hardware
from jettagger.training.distribution import Ranks
from jettagger.training.loss import check_labels
from jettagger.training.objective import Objective, in_float32

Array = NDArray[Any]


@dataclass(frozen=True)
class Validation:
    """Weighted figures of the validation jets."""

    loss: float
    """Without label smoothing, Σ w·l / Σ w; with strength · dCor² where the score is decorrelated."""
    accuracy: float | None
    """None without classes."""
    auc: float | None
    """One-vs-rest macro beyond two classes; None where it is undefined. Outside [0, 1] where negative
    weights bring it there."""
    targets: dict[str, dict[str, float | None]]
    """By target, in its units: `bias`, `resolution`, `pull_width`."""
    decorrelation: float | None
    """dCor² of each batch's background jets, weighted by these; None where it is not asked for."""
    bad: int | None
    """The number of the first batch whose loss is not finite, from 0."""


class _Part(NamedTuple):
    """What one rank found: sums over its part of each of S batches, and what is said of its jets."""

    losses_S: Tensor
    weights_S: Tensor
    right_S: Tensor
    squared_S: Tensor
    """dCor² of the background jets; 0 where it is not asked for."""
    background_S: Tensor
    """Their weights."""
    scores_NC: Array
    labels_N: Array
    weights_N: Array
    raw_NK: Array
    """Output columns; none where there are no targets."""
    targets_NT: Array
    """Normalised."""


@torch.no_grad()
def validate(
    network: Callable[[Inputs], Tensor],
    batches: Iterable[Batch],
    hardware: Hardware,
    objective: Objective,
    ranks: Ranks = Ranks(),  # noqa: B008 - it is immutable
) -> Validation:
    """Runs the network, which is in evaluation mode, over all batches; each rank has its part of them.

    Rank 0 gets what is said of all jets, so that the figures are those of one process; only dCor² is a mean over
    the parts.
    """
    part = _scored(network, batches, hardware, objective)
    parts = ranks.gathered(part)
    return ranks.first_does(lambda: _figures(parts or [], objective))


def _scored(
    network: Callable[[Inputs], Tensor], batches: Iterable[Batch], hardware: Hardware, objective: Objective
) -> _Part:
    outputs, summed = objective.outputs, objective.for_validation()
    sums, jets = [], []
    for given in batches:
        batch = given.to(hardware.device)
        with hardware.autocast():
            raw_BK = network(batch.inputs)
        if given.labels_B.is_cpu:
            check_labels(given, outputs.classes)
        raw_BK = in_float32(raw_BK)
        loss = summed(raw_BK, batch)
        right, squared, background = (loss.weights.new_zeros(()) for _ in range(3))
        if outputs.classes:
            right = (batch.weights_B * (outputs.logits(raw_BK).argmax(1) == batch.labels_B)).sum()
        if objective.decorrelate is not None:
            squared, background = objective.correlation(raw_BK, batch)
        sums.append((loss.losses, loss.weights, right, squared, background))
        targets_BT = raw_BK[:, :0] if batch.targets_BT is None else batch.targets_BT
        kept_BK = raw_BK[:, :0] if batch.targets_BT is None else raw_BK
        jets.append((outputs.probabilities(raw_BK), batch.labels_B, batch.weights_B, kept_BK, targets_BT))
    losses_S, *others = (torch.stack(x).cpu() for x in zip(*sums, strict=True))
    weights_S, right_S, squared_S, background_S = others
    of_jets: list[Array] = [torch.cat(x).cpu().numpy() for x in zip(*jets, strict=True)]
    return _Part(losses_S, weights_S, right_S, squared_S, background_S, *of_jets)


def _figures(parts: list[_Part], objective: Objective) -> Validation:
    columns = list(zip(*parts, strict=True))
    losses, weight, right = (float(sum(x.double().sum() for x in column)) for column in columns[:3])
    finite_S = torch.stack([torch.isfinite(part.losses_S) for part in parts]).all(0).tolist()
    bad = None if all(finite_S) else finite_S.index(False)
    if weight <= 0:
        raise JettaggerError(
            f"the weights of the validation jets add up to {weight:.4g}: check weights.event"
        )
    loss, decorrelation = losses / weight, None
    if objective.decorrelate is not None:
        squared_S, background_S = (torch.cat(column).double() for column in columns[3:5])
        background = float(background_S.sum())
        decorrelation = float((squared_S * background_S).sum()) / background if background > 0 else 0.0
        loss += objective.decorrelate.strength * decorrelation
    scores_NC, labels_N, weights_N, raw_NK, targets_NT = (np.concatenate(column) for column in columns[5:])
    classes, known = bool(objective.outputs.classes), bad is None
    return Validation(
        loss=loss,
        accuracy=right / weight if classes else None,
        auc=_auc(scores_NC, labels_N, weights_N) if classes and known else None,
        targets=_targets(raw_NK, targets_NT, weights_N, objective) if known else {},
        decorrelation=decorrelation,
        bad=bad,
    )


def _targets(
    raw_NK: Array, wanted_NT: Array, weights_N: Array, objective: Objective
) -> dict[str, dict[str, float | None]]:
    """What the predictions of each target are worth."""
    scales_T = torch.tensor(objective.scales, dtype=torch.float64)
    shifts_T = torch.zeros_like(scales_T)  # only differences are looked at
    estimates = objective.outputs.estimates(torch.from_numpy(raw_NK).double(), shifts_T, scales_T)
    found: dict[str, dict[str, float | None]] = {}
    for number, (name, estimate) in enumerate(estimates.items()):
        truth_N = wanted_NT[:, number].astype(np.float64) * objective.scales[number]
        known_N = np.isfinite(truth_N)
        residual_N, w_N = (estimate.value.numpy() - truth_N)[known_N], weights_N[known_N]
        figures, width = metrics.residuals(residual_N, w_N), None
        if estimate.variance is not None:
            width = metrics.pulls(residual_N / estimate.variance.sqrt().numpy()[known_N], w_N).width.value
        found[name] = {
            "bias": _plain(figures.bias.value),
            "resolution": _plain(figures.resolution.value),
            "pull_width": _plain(width),
        }
    return found


def _plain(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _auc(scores_NC: Array, labels_N: Array, weights_N: Array) -> float | None:
    """Each class against the rest, averaged; with two classes the second against the first."""
    classes = [1] if scores_NC.shape[1] == 2 else list(range(scores_NC.shape[1]))
    if not all(rankable(labels_N == c, weights_N) for c in classes):
        return None
    return macro_auc([rank(scores_NC[:, c], labels_N == c, weights_N) for c in classes]).value
