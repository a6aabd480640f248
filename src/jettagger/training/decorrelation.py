"""Distance correlation as a regulariser (DisCo, arXiv:2001.05310): scores that tell nothing of a variable.

Shapes: B jets.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Correlated(NamedTuple):
    """How much a score tells of a variable in a batch."""

    squared: Tensor
    """dCor², from 0 to 1."""
    weight: Tensor
    """Σ w of the jets that it was measured on."""


def distance_correlation(x_B: Tensor, y_B: Tensor, weights_B: Tensor) -> Correlated:
    """The squared distance correlation of two variables of weighted jets (doi:10.1214/009053607000000505).

    With p = w / Σw and distances a_ij = |x_i - x_j|, doubly centred by their p-weighted means to A (from y: B),
    dCov²(x, y) = Σ_ij p_i p_j A_ij B_ij, and dCor² = dCov²(x, y) / √(dCov²(x, x) dCov²(y, y)). It is 0 only for
    independent variables, up to a bias of order 1/B in a finite sample, and 0 where a variable is constant. Jets
    of weight 0 or below do not enter. Time and memory grow with B².
    """
    kept_B = weights_B.clamp(min=0)
    total = kept_B.sum()
    p_B = kept_B / total.clamp(min=torch.finfo(kept_B.dtype).tiny)
    a_BB, b_BB = _centred(x_B, p_B), _centred(y_B, p_B)
    p_BB = p_B.unsqueeze(1) * p_B
    both, of_x, of_y = (
        (p_BB * one * other).sum() for one, other in ((a_BB, b_BB), (a_BB, a_BB), (b_BB, b_BB))
    )
    # Where a variable is constant its rounded variance is 0 or tiny, and says nothing.
    least = torch.finfo(both.dtype).tiny
    known = (of_x > least) & (of_y > least)
    squared = both / torch.where(known, of_x.clamp(min=least).sqrt() * of_y.clamp(min=least).sqrt(), 1.0)
    return Correlated(torch.where(known, squared, 0.0), total)


def _centred(x_B: Tensor, p_B: Tensor) -> Tensor:
    """Distances between all pairs, (B, B), whose p-weighted means over rows and columns are 0."""
    distance_BB = (x_B.unsqueeze(1) - x_B).abs()
    mean_B = distance_BB @ p_B
    return distance_BB - mean_B.unsqueeze(1) - mean_B + mean_B @ p_B
