"""Means of the weights over a training: exponential (`ema`) and equal (`swa`)."""

from collections.abc import Iterable

import torch
from torch import nn

from jettagger.batch import Batch
from jettagger.errors import JettaggerError
from jettagger.training.device import Hardware
from jettagger.training.schema import SwaSection, TrainingSection
from jettagger.training.state import TrainingState, Weights


def average_of(model: nn.Module, section: TrainingSection, steps: int) -> Weights | None:
    """The mean that the config asks for, before the first of `steps` steps; None where it asks for none.

    Raises JettaggerError where no weights would enter it.
    """
    if section.swa is not None and not enters(steps - 1, steps, section.swa):
        raise JettaggerError(
            f"training.swa: no weights enter the mean: none of {steps} steps is after {section.swa.start:g}"
            " of them; write a smaller swa.start, or more epochs"
        )
    return start_average(model) if section.ema is not None or section.swa is not None else None


def start_average(model: nn.Module) -> Weights:
    """A running mean that starts at the model's weights and buffers."""
    return {name: x.detach().clone() for name, x in model.state_dict().items()}


def follow(state: TrainingState, section: TrainingSection, steps: int) -> None:
    """Takes the weights after step `state.step` (from 0) of `steps` into the mean that the config asks for."""
    if state.average is None:
        return
    if section.ema is not None:
        update_average(state.average, state.model, state.step, section.ema)
    if section.swa is not None and enters(state.step, steps, section.swa):
        move(state.average, state.model, 1 / (state.averaged + 1))
        state.averaged += 1


def update_average(average: Weights, model: nn.Module, step: int, decay: float) -> None:
    """mean ← d·mean + (1 - d)·weights, for the statistics of BatchNorm too; counters are copied.

    d = min(decay, (1 + step) / (10 + step)), so that the initial weights are soon forgotten; step from 0.
    """
    move(average, model, 1 - min(decay, (1 + step) / (10 + step)))


def enters(step: int, steps: int, section: SwaSection) -> bool:
    """Whether the weights after a step (from 0) enter the equal mean; those after the last step always do."""
    return step >= round(section.start * steps) and (steps - 1 - step) % section.every == 0


@torch.no_grad()
def move(average: Weights, model: nn.Module, share: float) -> None:
    """mean ← mean + share·(weights - mean), for floating-point buffers too; counters are copied."""
    now = model.state_dict()
    moving = [name for name, mean in average.items() if mean.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in moving], [now[name] for name in moving], share)
    for name, mean in average.items():
        if not mean.is_floating_point():
            mean.copy_(now[name])


@torch.no_grad()
def measure_statistics(model: nn.Module, batches: Iterable[Batch], hardware: Hardware) -> None:
    """Gives BatchNorm the mean over `batches` of their statistics; the model is in evaluation mode afterwards.

    The statistics of a mean of weights are not the mean of the weights' statistics (arXiv:1803.05407, section
    3.2). Dropout is off, as it is where the statistics are used.
    """
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    for number, batch in enumerate(batches if norms else ()):
        for norm in norms:
            norm.momentum = 1 / (number + 1)  # an equal mean over all batches so far
        with hardware.autocast():
            model(batch.to(hardware.device).inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
