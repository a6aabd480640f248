"""Optimisers, and the learning rate as a function of the step."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from jettagger.training.schema import OptimiserSection, ScheduleSection

DEFAULT_DECAY = {"adamw": 0.01, "adam": 0.0, "sgd": 0.0}


def build_optimiser(model: nn.Module, section: OptimiserSection) -> torch.optim.Optimizer:
    """The optimiser of the section over the model's parameters that are trained.

    Vectors (biases, scales and shifts of normalisations) do not decay: they have few entries, and pulling a
    scale to 0 fights the normalisation. The fused kernels are used: one pass over memory, 3 × faster than one
    operation a tensor on a CPU, and as reproducible.
    """
    decay = DEFAULT_DECAY[section.name] if section.weight_decay is None else section.weight_decay
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = (
        [group for group in groups if group["params"]]
        if decay
        else [{"params": trained, "weight_decay": 0.0}]
    )
    if section.name == "sgd":
        return torch.optim.SGD(
            groups, lr=section.lr, momentum=section.momentum, nesterov=section.nesterov, fused=True
        )
    kind = torch.optim.AdamW if section.name == "adamw" else torch.optim.Adam
    first, second = section.betas
    return kind(groups, lr=section.lr, betas=(first, second), eps=section.epsilon, fused=True)


def rate(step: int, steps: int, section: ScheduleSection) -> float:
    """Learning rate of step 0 … steps - 1, as a fraction of the highest; `plateau` multiplies its own on top.

    The warm-up follows half a cosine from `initial` to 1, which is reached after `warm_up` of the steps.
    one_cycle (arXiv:1708.07120, momentum held constant) and cosine (arXiv:1608.03983, one period) then follow
    half a cosine down to `final`, which is the rate of the last step.
    """
    share = (0.3 if section.name == "one_cycle" else 0.0) if section.warm_up is None else section.warm_up
    rising = round(share * steps)
    if step < rising:
        return _half_cosine(section.initial, 1.0, step / rising)
    if section.name in ("one_cycle", "cosine"):
        return _half_cosine(1.0, section.final, (step - rising) / max(steps - 1 - rising, 1))
    return 1.0


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


@dataclass
class Plateau:
    """How far the rate has come down because the validation loss stood still."""

    factor: float = 1.0
    best: float = math.inf
    waited: int = 0

    def observe(self, loss: float, section: ScheduleSection) -> None:
        """Takes the validation loss of an epoch; does nothing for other schedules."""
        if section.name != "plateau":
            return
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > section.patience:
            self.factor, self.waited = max(self.factor * section.factor, section.final), 0
