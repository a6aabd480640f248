"""The L1 penalty λ Σ|w| over the weights between layers: it pulls those that are not needed to 0."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jettagger.training.optimisers import is_matrix


def add_l1(model: nn.Module, strength: float) -> None:
    """Adds the penalty's subgradient λ sign(w) (0 at 0) to the gradients of the loss.

    To be called once a step, after the sums over micro-batches and ranks and without a gradient scaler's factor:
    the penalty does not grow with any of them.
    """
    if strength:
        penalise(_penalised(model), strength)


def penalise(weights: Sequence[Tensor], strength: float) -> None:
    """`add_l1` for weights by themselves, which may be stacks over several networks."""
    pairs = [(p.grad, p) for p in weights if p.grad is not None]
    with torch.no_grad():
        signs = torch._foreach_sign([weight for _, weight in pairs])
        torch._foreach_add_([gradient for gradient, _ in pairs], signs, alpha=strength)


@torch.no_grad()
def l1_penalty(model: nn.Module, strength: float) -> float:
    """λ Σ|w|."""
    if strength == 0:
        return 0.0
    return strength * sum(float(p.abs().sum(dtype=torch.float64)) for p in _penalised(model))


def _penalised(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad and is_matrix(p)]
