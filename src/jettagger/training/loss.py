"""The loss: weighted cross-entropy.

Shapes: B jets, C classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from jettagger.batch import Batch
from jettagger.errors import JettaggerError


class WeightedLoss(NamedTuple):
    """Sums over the jets of a batch, so that batches can be added."""

    losses: Tensor
    """Σ w·l."""
    weights: Tensor
    """Σ w."""
    magnitude: Tensor
    """Σ |w|."""

    @property
    def step(self) -> Tensor:
        """What is minimised: Σ w·l / Σ |w|.

        With weights of one sign this is the weighted mean. Negative weights keep their sign above and count
        with their magnitude below: Σ w of a small batch can come near to 0 or below, and would turn the
        gradient round.
        """
        return self.losses / self.magnitude.clamp(min=torch.finfo(self.magnitude.dtype).tiny)


def cross_entropy(logits_BC: Tensor, labels_B: Tensor, weights_B: Tensor, smoothing: float) -> WeightedLoss:
    """Weighted cross-entropy in float32 at least; `smoothing` of each label is spread over all classes."""
    if logits_BC.dtype in (torch.bfloat16, torch.float16):
        logits_BC = logits_BC.float()
    losses_B = functional.cross_entropy(logits_BC, labels_B, reduction="none", label_smoothing=smoothing)
    magnitude = torch.linalg.vector_norm(weights_B, 1)
    return WeightedLoss(torch.dot(weights_B.to(losses_B.dtype), losses_B), weights_B.sum(), magnitude)


def check_labels(batch: Batch, classes: int) -> None:
    """Raises JettaggerError when a jet has no label, or one beyond the classes."""
    if len(batch) == 0:
        return
    lowest, highest = (int(x) for x in torch.aminmax(batch.labels_B))
    if lowest < 0:
        unlabelled_B = batch.labels_B < 0
        indices = ", ".join(str(index) for index in batch.index_B[unlabelled_B][:5].tolist())
        raise JettaggerError(
            f"{int(unlabelled_B.sum())} of {len(batch)} jets in a batch have no class (such as {indices});"
            " training needs labelled jets: check `classes` against `data.selection`"
        )
    if highest >= classes:
        raise JettaggerError(f"a jet has label {highest}, but the network has {classes} outputs")
