"""The scaled loss of a training in float16.

Gradients below 6e-8 are zero in float16: the loss is multiplied by a large number before the gradient is taken, and
the gradient is divided by it (arXiv:1710.03740). Where the number was too large the gradient is infinite: the step is
left out and counted, and the number is halved. It is doubled after 2000 steps that went well. Each member has its own.
"""

import torch
from torch import Tensor
from torch.amp import GradScaler

from jettagger.training.device import Hardware
from jettagger.training.lookahead import Lookahead

MOST_IN_A_ROW = 40
"""Steps left out one after the other at which the training has failed: the scale is far below 1 by then."""


def scaler_of(hardware: Hardware, optimiser: torch.optim.Optimizer) -> GradScaler | None:
    """The scaler of a new training; None where the precision needs none."""
    if not hardware.float16:
        return None
    _start_momentum(optimiser)
    return GradScaler(hardware.device.type)


def _start_momentum(optimiser: torch.optim.Optimizer) -> None:
    """Fused SGD makes room for its momentum in its first step, and leaves it as it finds it when that is left out."""
    inner = optimiser.inner if isinstance(optimiser, Lookahead) else optimiser
    if isinstance(inner, torch.optim.SGD):
        for group in inner.param_groups:
            for p in group["params"] if group["momentum"] else ():
                inner.state[p]["momentum_buffer"] = torch.zeros_like(p)


def backward(loss: Tensor, scaler: GradScaler | None) -> None:
    """Adds the gradient of the loss, scaled, to the parameters'."""
    (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]


def unscale(optimiser: torch.optim.Optimizer, scaler: GradScaler | None) -> None:
    """Once a step, after all its gradients are summed: divides them by the scale."""
    if scaler is not None:
        scaler.unscale_(optimiser)


def apply(optimiser: torch.optim.Optimizer, scaler: GradScaler | None) -> None:
    """The optimiser's step, left out where the gradient is not finite.

    Fused optimisers see that by themselves; for others (RAdam, AdaDelta, Lion, Lookahead) the scaler waits for the
    device.
    """
    if scaler is None:
        optimiser.step()
        return
    scaler.step(optimiser)
    scaler.update()
