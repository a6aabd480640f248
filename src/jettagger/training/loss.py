"""The losses of each jet, and their weighted sums.

A loss is written for each jet, without a branch on a tensor's values, so that members of an ensemble can be batched
by `torch.vmap`.

Shapes: B jets, C classes, Q quantiles.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from jettagger.batch import Batch
from jettagger.errors import JettaggerError
from jettagger.outputs.description import TargetOutput, variance


class WeightedLoss(NamedTuple):
    """Sums over the jets of a batch, so that batches can be added."""

    losses: Tensor
    """Σ w·l, what is reported: over Σ w it is the mean loss."""
    weights: Tensor
    """Σ w."""
    magnitude: Tensor
    """Σ |w|."""
    minimised: Tensor
    """Σ w·l; what is no sum over jets counts with Σ |w| here, and with Σ w in `losses`."""

    @property
    def step(self) -> Tensor:
        """What is minimised: Σ w·l / Σ |w|.

        With weights of one sign this is the weighted mean. Negative weights keep their sign above and count
        with their magnitude below: Σ w of a small batch can come near to 0 or below, and would turn the
        gradient round.
        """
        return self.minimised / self.magnitude.clamp(min=torch.finfo(self.magnitude.dtype).tiny)

    def plus(self, other: "WeightedLoss") -> "WeightedLoss":
        """The sums over the jets of both."""
        return WeightedLoss(*(mine + its for mine, its in zip(self, other, strict=True)))


def summed(losses_B: Tensor, weights_B: Tensor) -> WeightedLoss:
    """The sums of a batch."""
    magnitude = torch.linalg.vector_norm(weights_B, 1)
    losses = torch.dot(weights_B.to(losses_B.dtype), losses_B)
    return WeightedLoss(losses, weights_B.sum(), magnitude, losses)


def cross_entropy(logits_BC: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """-ln p(label) of a softmax, (B,); `smoothing` of each label is spread over all classes."""
    return functional.cross_entropy(logits_BC, labels_B, reduction="none", label_smoothing=smoothing)


def binary_cross_entropy(logit_B: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """-ln p(label) of p = sigmoid(logit) for the second class, (B,)."""
    wanted_B = labels_B.to(logit_B.dtype) * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logit_B, wanted_B, reduction="none")


def focal(logits_BC: Tensor, labels_B: Tensor, gamma: float) -> Tensor:
    """-(1 - p)^gamma ln p of the label's probability p, (B,) (arXiv:1708.02002)."""
    entropy_B = cross_entropy(logits_BC, labels_B)
    if gamma == 0:
        return entropy_B
    # 1 - p without the loss of digits near p = 1; at p = 1 the power has no derivative for gamma < 1.
    missing_B = (-torch.expm1(-entropy_B)).clamp(min=torch.finfo(entropy_B.dtype).tiny)
    return missing_B**gamma * entropy_B


def class_squares(estimates_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Σ_k (estimate_k - y_k)², (B,), where y is 1 for the label and 0 for the others."""
    own_B = estimates_BC.gather(1, labels_B.unsqueeze(1)).squeeze(1)
    return estimates_BC.square().sum(1) - 2 * own_B + 1


def target_loss(columns_BK: Tensor, truth_B: Tensor, target: TargetOutput) -> Tensor:
    """The loss of a target in normalised units, (B,).

    `mse`: (y - t)². `gaussian_nll`: ½ [ln σ² + (y - t)²/σ²], without the constant ½ ln 2π (arXiv:1612.01474).
    `quantile`: the pinball loss, max(q·d, (q - 1)·d) for d = t - y_q, averaged over the levels q.
    """
    if target.loss == "quantile":
        gap_BQ = truth_B.unsqueeze(1) - columns_BK
        levels_Q = torch.tensor(target.quantiles, dtype=columns_BK.dtype, device=columns_BK.device)
        return torch.maximum(levels_Q * gap_BQ, (levels_Q - 1) * gap_BQ).mean(1)
    squares_B = (columns_BK[:, 0] - truth_B).square()
    if target.loss == "mse":
        return squares_B
    variance_B = variance(columns_BK[:, 1])
    return (variance_B.log() + squares_B / variance_B) / 2


def check_labels(batch: Batch, classes: Sequence[str]) -> None:
    """Raises JettaggerError when a jet has no label, or one beyond the classes; without classes none is needed."""
    if len(batch) == 0 or not classes:
        return
    lowest, highest = (int(x) for x in torch.aminmax(batch.labels_B))
    if lowest < 0:
        unlabelled_B = batch.labels_B < 0
        indices = ", ".join(str(index) for index in batch.index_B[unlabelled_B][:5].tolist())
        raise JettaggerError(
            f"{int(unlabelled_B.sum())} of {len(batch)} jets in a batch have no class (such as {indices});"
            " training needs labelled jets: check `classes` against `data.selection`"
        )
    if highest >= len(classes):
        raise JettaggerError(f"a jet has label {highest}, but the network has {len(classes)} classes")
