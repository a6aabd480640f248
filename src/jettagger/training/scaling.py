"""The scaled loss of a training in float16.

Gradients below 6e-8 are zero in float16: the loss is multiplied by a large number before the gradient is taken, and
the gradient divided by it (arXiv:1710.03740). Where the number was too large the gradient is infinite, the step is
left out and counted, and the number is halved; it is doubled after every 2000 steps that went well.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FIRST = 2.0**16
PATIENCE = 2000
"""Steps without an infinite gradient after which the scale is doubled."""
MOST_IN_A_ROW = 40
"""Steps left out one after the other beyond which the training has failed: the scale is far below 1 by then."""


class LossScale:
    """The scale of one member's loss. Everything stays on the device: no step waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), FIRST, device=device)
        self.steady = torch.zeros((), dtype=torch.int32, device=device)
        """Steps since the scale was last changed."""
        self.infinite = torch.zeros((), device=device)
        """1.0 where the step's gradient is not finite, else 0.0."""

    def scaled(self, loss: Tensor) -> Tensor:
        """What the gradient is taken of."""
        return loss * self.scale.to(loss.dtype)

    def unscale(self, gradients: Sequence[Tensor]) -> None:
        """Divides the gradients, in place, and notes whether they are finite."""
        self.infinite.zero_()
        inverse = self.scale.double().reciprocal().float()
        torch._amp_foreach_non_finite_check_and_unscale_(list(gradients), self.infinite, inverse)

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """The optimiser's step, left out where the gradient is not finite; then the next scale."""
        if getattr(optimiser, "_step_supports_amp_scaling", False):
            # A fused kernel looks at the flag by itself: it need not come to the host.
            optimiser.found_inf, optimiser.grad_scale = self.infinite, None  # type: ignore[attr-defined]
            optimiser.step()
            del optimiser.found_inf, optimiser.grad_scale  # type: ignore[attr-defined]
        elif not bool(self.infinite):
            optimiser.step()
        torch._amp_update_scale_(self.scale, self.steady, self.infinite, 2.0, 0.5, PATIENCE)

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds; the tensors are the live ones."""
        return {"scale": self.scale, "steady": self.steady}

    def restore(self, content: dict[str, Any]) -> None:
        """Takes over what `content` gave."""
        self.scale.copy_(content["scale"])
        self.steady.copy_(content["steady"])
