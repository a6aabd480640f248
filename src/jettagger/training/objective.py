"""What is minimised: the losses of classes and targets, summed over a batch, and the decorrelation of the score.

Shapes: B jets, K output columns, C classes, T targets.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jettagger.batch import Batch, Truth
from jettagger.models.parts.model import JetModel
from jettagger.outputs.description import Outputs
from jettagger.outputs.schema import ClassLossSection
from jettagger.training import loss
from jettagger.training.decorrelation import Correlated, distance_correlation
from jettagger.training.loss import WeightedLoss
from jettagger.training.schema import DecorrelateSection, TrainingSection


@dataclass(frozen=True)
class Objective:
    """The loss of a training. It holds no tensor, and can be batched over members by `torch.vmap`."""

    outputs: Outputs
    class_loss: ClassLossSection
    smoothing: float = 0.0
    decorrelate: DecorrelateSection | None = None
    scales: tuple[float, ...] = ()
    """(T,): units of each normalised target."""

    def __call__(self, raw_BK: Tensor, batch: Batch) -> WeightedLoss:
        """The sums over a batch, which may be a part of a larger one.

        A jet's loss is that of its class plus, for each target that is known, weight · loss. Mixed jets count
        once with each of their two truths. dCor² is no sum over jets: it is taken over this part, and enters what is
        minimised as strength · dCor² · Σ|w| and what is reported as strength · dCor² · Σw, so that parts added have
        the mean of their dCor², weighted by their jets.
        """
        raw_BK = in_float32(raw_BK)
        found = self._sums(raw_BK, batch.truth)
        if batch.partner is not None:
            found = found.plus(self._sums(raw_BK, batch.partner))
        if self.decorrelate is not None:
            penalty = self.decorrelate.strength * self.correlation(raw_BK, batch).squared
            found = found._replace(
                losses=found.losses + penalty * found.weights,
                minimised=found.minimised + penalty * found.magnitude,
            )
        return found

    def magnitude(self, batch: Batch) -> Tensor:
        """Σ|w| of a batch, which is known before the network has run; mixing jets does not change it."""
        magnitude: Tensor = torch.linalg.vector_norm(self._counted(batch.truth), 1)
        return magnitude

    def for_validation(self) -> "Objective":
        """The same without what only helps the training, and without the decorrelation, which is no sum."""
        return replace(self, smoothing=0.0, decorrelate=None)

    def losses(self, raw_BK: Tensor, truth: Truth) -> Tensor:
        """The loss of each jet, (B,), in float32 at least."""
        raw_BK = in_float32(raw_BK)
        losses_B = (
            self._class_losses(raw_BK, truth.labels_B) if self.outputs.classes else raw_BK.new_zeros(())
        )
        for number, target in enumerate(self.outputs.targets):
            assert truth.targets_BT is not None, "the batches hold no targets"
            wanted_B = truth.targets_BT[:, number].to(raw_BK.dtype)
            known_B = torch.isfinite(wanted_B)
            columns_BK = raw_BK[:, self.outputs.columns_of(target.name)]
            of_target_B = loss.target_loss(columns_BK, torch.where(known_B, wanted_B, 0.0), target)
            losses_B = losses_B + target.weight * torch.where(known_B, of_target_B, 0.0)
        return losses_B

    def correlation(self, raw_BK: Tensor, batch: Batch) -> Correlated:
        """Squared distance correlation between score and variable, of the background jets of a batch."""
        section = self.decorrelate
        assert section is not None
        assert batch.spectator_B is not None, "the batches do not hold the variable"
        classes = self.outputs.classes
        background = classes.index(section.background)
        # p and 1 - p have the same distance correlation with anything.
        scored = background if section.signal is None else classes.index(section.signal)
        score_B = self.outputs.probabilities(in_float32(raw_BK))[:, scored]
        variable_B = batch.spectator_B.to(score_B.dtype)
        known_B = torch.isfinite(variable_B) & (batch.labels_B == background)
        weights_B = torch.where(known_B, batch.weights_B.to(score_B.dtype), 0.0)
        return distance_correlation(score_B, torch.where(known_B, variable_B, 0.0), weights_B)

    def _sums(self, raw_BK: Tensor, truth: Truth) -> WeightedLoss:
        return loss.summed(self.losses(raw_BK, truth), self._counted(truth))

    def _counted(self, truth: Truth) -> Tensor:
        """The weights, (B,); without classes a jet without any target counts nothing."""
        if self.outputs.classes or truth.targets_BT is None:
            return truth.weights_B
        return torch.where(torch.isfinite(truth.targets_BT).any(1), truth.weights_B, 0.0)

    def _class_losses(self, raw_BK: Tensor, labels_B: Tensor) -> Tensor:
        section, columns_BK = self.class_loss, raw_BK[:, : self.outputs.class_columns]
        if section.name == "binary_cross_entropy":
            return loss.binary_cross_entropy(columns_BK[:, 0], labels_B, self.smoothing)
        if section.name == "focal":
            return loss.focal(columns_BK, labels_B, section.gamma)
        if section.name == "mse":
            linear = section.output == "linear"
            return loss.class_squares(columns_BK if linear else columns_BK.softmax(1), labels_B)
        return loss.cross_entropy(columns_BK, labels_B, self.smoothing)


def objective_of(model: JetModel, section: TrainingSection) -> Objective:
    """The objective that the config describes for a network."""
    scales = tuple(model.target_scale.tolist()) if model.outputs.targets else ()
    return Objective(model.outputs, section.loss, section.label_smoothing, section.decorrelate, scales)


def in_float32(raw: Tensor) -> Tensor:
    """Outputs of 16 bits in float32; others as they are."""
    return raw.float() if raw.dtype in (torch.bfloat16, torch.float16) else raw
