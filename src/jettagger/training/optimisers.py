"""Optimisers: how the weights follow the gradient.

All of them are elementwise: a weight's step depends on its own gradients and state only. The weights of several
networks may be stacked along a new first axis and make the same steps as alone. Clipping is not elementwise, and
no part of them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jettagger.training.lion import Lion
from jettagger.training.lookahead import Lookahead
from jettagger.training.optimiser_schema import OptimiserSection

DEFAULT_DECAY = {"adamw": 0.01, "lion": 0.1}
"""0 for the others."""


def build_optimiser(model: nn.Module, section: OptimiserSection) -> torch.optim.Optimizer:
    """The optimiser of the section over the model's parameters that are trained."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return optimiser_over(trained, [is_matrix(parameter) for parameter in trained], section)


def is_matrix(parameter: Tensor) -> bool:
    """Whether a network's parameter holds weights between layers; else it is a bias, or scales or shifts."""
    return parameter.ndim > 1


def optimiser_over(
    parameters: Sequence[Tensor], decays: Sequence[bool], section: OptimiserSection
) -> torch.optim.Optimizer:
    """The optimiser of the section over these parameters, which may be stacks over several networks.

    `decays`: whether a parameter decays. Vectors do not: they have few entries, and pulling a scale to 0 fights the
    normalisation. Fused kernels are used where there are: one pass over memory, 3 × faster than one operation a
    tensor on a CPU, and as reproducible; where there are none, operations on all tensors at once.
    """
    decay = DEFAULT_DECAY.get(section.name, 0.0) if section.weight_decay is None else section.weight_decay
    groups = [{"params": list(parameters), "weight_decay": 0.0}]
    if decay > 0:
        divided = (
            {
                "params": [p for p, d in zip(parameters, decays, strict=True) if d is chosen],
                "weight_decay": size,
            }
            for chosen, size in ((True, decay), (False, 0.0))
        )
        groups = [group for group in divided if group["params"]]
    inner = _plain(groups, section)
    if section.lookahead is None:
        return inner
    return Lookahead(inner, section.lookahead.steps, section.lookahead.share)


def _plain(groups: list[dict[str, Any]], section: OptimiserSection) -> torch.optim.Optimizer:
    """The optimiser without lookahead."""
    lr, epsilon, betas = section.lr, section.epsilon, (section.betas[0], section.betas[1])
    match section.name:
        case "sgd":
            return torch.optim.SGD(
                groups, lr=lr, momentum=section.momentum, nesterov=section.nesterov, fused=True
            )
        case "adam":
            return torch.optim.Adam(groups, lr=lr, betas=betas, eps=epsilon, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=epsilon, fused=True)
        case "radam" | "ranger":
            return torch.optim.RAdam(
                groups, lr=lr, betas=betas, eps=epsilon, decoupled_weight_decay=True, foreach=True
            )
        case "adadelta":
            return torch.optim.Adadelta(groups, lr=lr, rho=section.rho, eps=epsilon, foreach=True)
        case "lion":
            return Lion(groups, lr=lr, betas=betas)


@torch.no_grad()
def step_with_rates(optimiser: torch.optim.Optimizer, rates_M: Tensor) -> None:
    """A step in which network m of the stacked parameters (M, ...) has the learning rate `rates_M[m]`.

    With its state as it is, every optimiser here makes a step that is proportional to its rate: the step for rate
    1 is made and scaled.
    """
    inner = optimiser.inner if isinstance(optimiser, Lookahead) else optimiser
    if isinstance(optimiser, Lookahead):
        optimiser.remember()
    weights = [p for group in inner.param_groups for p in group["params"] if p.grad is not None]
    before = [p.detach().clone() for p in weights]
    for group in inner.param_groups:
        group["lr"] = 1.0
    inner.step()
    for p, start in zip(weights, before, strict=True):
        share = rates_M.to(p).view(-1, *(1,) * (p.ndim - 1))
        p.copy_(start + share * (p - start))
    if isinstance(optimiser, Lookahead):
        optimiser.pull()
