"""Lion, an optimiser whose steps are all of one size."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Lion(torch.optim.Optimizer):
    """x ← (1 - lr·decay) x - lr·sign(β₁ m + (1 - β₁) g), then m ← β₂ m + (1 - β₂) g. arXiv:2302.06675, algorithm 2.

    The state is one running mean of the gradient for each weight, half of what Adam needs.
    """

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step along the signs; parameters without a gradient stay."""
        assert closure is None, "the trainer has its gradients when it makes a step"
        for group in self.param_groups:
            self._step_of(group)

    def _step_of(self, group: dict[str, Any]) -> None:
        weights: list[Tensor] = [p for p in group["params"] if p.grad is not None]
        if not weights:
            return
        gradients = [p.grad for p in weights if p.grad is not None]
        means = [self._mean_of(p) for p in weights]
        first, second = group["betas"]
        directions = torch._foreach_lerp(means, gradients, 1 - first)
        torch._foreach_sign_(directions)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, directions, alpha=-group["lr"])
        torch._foreach_lerp_(means, gradients, 1 - second)

    def _mean_of(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(weight)
        mean: Tensor = state["exp_avg"]
        return mean
