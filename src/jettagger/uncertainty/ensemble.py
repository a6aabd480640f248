"""Probabilities of the members of a deep ensemble (arXiv:1612.01474), and whether each member is sound.

Shapes: M members, B or N jets, K output columns, C classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jettagger.batch import Inputs
from jettagger.models.parts.model import JetModel
from jettagger.outputs.description import Estimate, Outputs, plain
from jettagger.uncertainty.decomposition import Decomposition, Floats, decompose

CONSTANT = 1e-6
"""A member whose probabilities vary less than this over all jets has learned nothing."""


class MemberHealth(NamedTuple):
    """What is wrong with a member, if anything. Members are reported, never dropped."""

    member: int
    problem: str | None
    """None, `not finite`, `constant` or `no better than the class fractions`."""


def probabilities_of(raw: Tensor, outputs: Outputs | None = None) -> Floats:
    """Probabilities of the classes in float64, (..., C); by default all columns are logits of a softmax."""
    outputs = plain(raw.shape[-1]) if outputs is None else outputs
    probabilities: Floats = outputs.probabilities(raw.detach().double()).cpu().numpy()
    return probabilities


def estimates_of(raw: Tensor, model: JetModel) -> dict[str, Estimate]:
    """What output columns of a model say of its targets, in float64 and the user's units."""
    if not model.outputs.targets:
        return {}
    scaling = model.target_shift.double(), model.target_scale.double()
    return model.outputs.estimates(raw.detach().double(), *scaling)


def raw_outputs(model: JetModel, inputs: Inputs) -> Tensor:
    """Output columns, (B, K), of a model in evaluation mode, which is put back afterwards."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        raw_BK = model(inputs)
    model.train(was_training)
    return raw_BK


def member_probabilities(models: Sequence[JetModel], inputs: Inputs) -> Floats:
    """(M, B, C), each model in evaluation mode, which is put back afterwards."""
    return np.stack([probabilities_of(raw_outputs(model, inputs), model.outputs) for model in models])


def median_decomposition(probabilities_MNC: NDArray[np.floating]) -> Decomposition:
    """The median of the members' probabilities in place of their mean: fewer than half of them cannot move it far.

    The medians of the classes are scaled to a sum of 1; where all of them are 0 the mean stands. Spreads and
    entropies are those of the members.
    """
    found = decompose(probabilities_MNC)
    median_NC = np.median(np.asarray(probabilities_MNC, np.float64), axis=0)
    sum_N1 = median_NC.sum(-1, keepdims=True)
    scaled_NC = np.divide(median_NC, sum_N1, out=found.probabilities_NC.copy(), where=sum_N1 > 0)
    return found._replace(probabilities_NC=scaled_NC)


def member_health(
    probabilities_MNC: NDArray[np.floating],
    labels_N: NDArray[np.int64] | None = None,
    weights_N: NDArray[np.floating] | None = None,
) -> list[MemberHealth]:
    """Each member's state, from its probabilities for a validation sample; labels -1 are left out."""
    return [
        MemberHealth(member, _problem(np.asarray(p_NC, np.float64), labels_N, weights_N))
        for member, p_NC in enumerate(probabilities_MNC)
    ]


def _problem(
    p_NC: Floats, labels_N: NDArray[np.int64] | None, weights_N: NDArray[np.floating] | None
) -> str | None:
    if not np.isfinite(p_NC).all():
        return "not finite"
    if len(p_NC) > 1 and np.ptp(p_NC, axis=0).max() < CONSTANT:
        return "constant"
    if labels_N is None or not (labels_N >= 0).any():
        return None
    known_N = labels_N >= 0
    labels_N, p_NC = labels_N[known_N], p_NC[known_N]
    w_N = np.ones(len(labels_N)) if weights_N is None else np.asarray(weights_N, np.float64)[known_N]
    sums_C = np.bincount(labels_N, w_N, p_NC.shape[1])
    if (sums_C[np.unique(labels_N)] <= 0).any():  # negative weights: nothing can be guessed by such fractions
        return None
    fractions_C = sums_C / sums_C.sum()
    tiny = np.finfo(np.float64).tiny
    own = -np.log(np.maximum(p_NC[np.arange(len(labels_N)), labels_N], tiny)) @ w_N
    guess = -np.log(np.maximum(fractions_C[labels_N], tiny)) @ w_N
    return "no better than the class fractions" if own >= guess else None
