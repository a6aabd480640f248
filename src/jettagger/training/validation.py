"""What a network in training is worth on the validation jets.

Shapes: B jets of a batch, N jets of all, K output columns, C classes, T targets.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from jettagger import metrics
from jettagger.batch import Batch, Inputs
from jettagger.errors import JettaggerError
from jettagger.metrics import macro_auc, rank
from jettagger.training.decorrelation import Correlated
from jettagger.training.device import Hardware
from jettagger.training.loss import WeightedLoss, check_labels
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
    """One-vs-rest macro beyond two classes; None where it is undefined."""
    targets: dict[str, dict[str, float | None]]
    """By target, in its units: `bias`, `resolution`, `pull_width`."""
    decorrelation: float | None
    """dCor² of each batch's background jets, weighted by these; None where it is not asked for."""
    bad: int | None
    """The number of the first batch whose loss is not finite, from 0."""


@dataclass
class _Collected:
    """What is kept of each batch."""

    sums: list[WeightedLoss] = field(default_factory=list)
    right: list[Tensor] = field(default_factory=list)
    scores: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    """Probabilities, labels, weights."""
    targets: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    """Output columns, normalised targets, weights."""
    correlated: list[Correlated] = field(default_factory=list)


@torch.no_grad()
def validate(
    network: Callable[[Inputs], Tensor],
    batches: Iterable[Batch],
    hardware: Hardware,
    objective: Objective,
) -> Validation:
    """Runs the network, which is in evaluation mode, over all batches."""
    outputs, summed, kept = objective.outputs, objective.for_validation(), _Collected()
    for given in batches:
        batch = given.to(hardware.device)
        with hardware.autocast():
            raw_BK = network(batch.inputs)
        if given.labels_B.is_cpu:
            check_labels(given, outputs.classes)
        raw_BK = in_float32(raw_BK)
        kept.sums.append(summed(raw_BK, batch))
        if outputs.classes:
            right_B = outputs.logits(raw_BK).argmax(1) == batch.labels_B
            kept.right.append((batch.weights_B * right_B).sum())
            kept.scores.append((outputs.probabilities(raw_BK), batch.labels_B, batch.weights_B))
        if batch.targets_BT is not None:
            kept.targets.append((raw_BK, batch.targets_BT, batch.weights_B))
        if objective.decorrelate is not None:
            kept.correlated.append(objective.correlation(raw_BK, batch))
    return _measured(kept, objective)


def _measured(kept: _Collected, objective: Objective) -> Validation:
    losses, weights, _ = (torch.stack(x) for x in zip(*kept.sums, strict=True))
    total, weight = float(losses.double().sum()), float(weights.double().sum())
    finite = torch.isfinite(losses).tolist()
    bad = None if all(finite) else finite.index(False)
    if weight <= 0:
        raise JettaggerError(
            f"the weights of the validation jets add up to {weight:.4g}: check weights.event"
        )
    loss, accuracy, area, decorrelation = total / weight, None, None, None
    if kept.scores:
        accuracy = float(torch.stack(kept.right).double().sum()) / weight
        if bad is None:
            area = _auc(*(torch.cat(x).cpu().numpy() for x in zip(*kept.scores, strict=True)))
    if objective.decorrelate is not None:
        squared, jets = (torch.stack(x).double() for x in zip(*kept.correlated, strict=True))
        decorrelation = float((squared * jets).sum() / jets.sum()) if float(jets.sum()) > 0 else 0.0
        loss += objective.decorrelate.strength * decorrelation
    targets = _targets(kept, objective) if kept.targets and bad is None else {}
    return Validation(loss, accuracy, area, targets, decorrelation, bad)


def _targets(kept: _Collected, objective: Objective) -> dict[str, dict[str, float | None]]:
    """What the predictions of each target are worth."""
    raw_NK, wanted_NT, weights_N = (torch.cat(x).double().cpu() for x in zip(*kept.targets, strict=True))
    scales_T = torch.tensor(objective.scales, dtype=torch.float64)
    shifts_T = torch.zeros_like(scales_T)  # only differences are looked at
    found: dict[str, dict[str, float | None]] = {}
    for number, (name, estimate) in enumerate(
        objective.outputs.estimates(raw_NK, shifts_T, scales_T).items()
    ):
        known_N = torch.isfinite(wanted_NT[:, number])
        truth_N = wanted_NT[:, number] * scales_T[number]
        residual_N, w_N = (estimate.value - truth_N)[known_N].numpy(), weights_N[known_N].numpy()
        figures = metrics.residuals(residual_N, w_N)
        width = None
        if estimate.variance is not None:
            width = metrics.pulls(residual_N / estimate.variance.sqrt()[known_N].numpy(), w_N).width.value
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
    for c in classes:
        for side_N in (labels_N == c, labels_N != c):
            if weights_N[side_N].sum() <= 0:
                return None
    return macro_auc([rank(scores_NC[:, c], labels_N == c, weights_N) for c in classes]).value
