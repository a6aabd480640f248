"""One step of a training: loss, gradient, weights; and the watch over whether they stay finite.

Shapes: B jets, C classes.
"""

import math
from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor

from jettagger.batch import Batch, Inputs
from jettagger.randomness import key
from jettagger.training.averages import follow
from jettagger.training.diagnosis import not_finite
from jettagger.training.l1 import add_l1
from jettagger.training.loss import WeightedLoss, check_labels, cross_entropy
from jettagger.training.scaling import MOST_IN_A_ROW, apply, backward, unscale
from jettagger.training.schedules import rate
from jettagger.training.state import TrainingState
from jettagger.training.training import Training

CHECK_EVERY = 32
"""Steps between two looks at the loss on an accelerator, where each look waits for it."""


def make_step(training: Training, state: TrainingState, given: Batch) -> None:
    """One step of the optimiser, and what is remembered of it."""
    section = training.section
    on_cpu = training.hardware.device.type == "cpu"
    batch = given if on_cpu else given.to(training.hardware.device)
    batch = replace(batch, inputs=_mirrored(training, state, batch.inputs))
    state.optimiser.zero_grad()
    loss = add_gradient(training, state, batch, given)
    unscale(state.optimiser, state.scaler)
    add_l1(training.model, section.l1)
    norm = clip_gradients(state.optimiser, section.gradient_clip)
    training.pending.append((state.step, torch.stack((loss.losses.detach(), loss.weights, norm))))
    if on_cpu or len(training.pending) == CHECK_EVERY:
        look(training, state)
    for group in state.optimiser.param_groups:
        group["lr"] = _rate(training, state, state.step)
    apply(state.optimiser, state.scaler)
    follow(state, section, training.steps)
    state.sums.jets += len(batch)
    state.step += 1


def add_gradient(
    training: Training, state: TrainingState, batch: Batch, given: Batch | None = None
) -> WeightedLoss:
    """Adds the gradient of a batch's loss to the parameters'; `given` is the batch as it was on the host."""
    with training.hardware.autocast():
        logits_BC = training.network(batch.inputs)
    if given is not None and state.epoch == 0 and given.labels_B.is_cpu:  # later epochs have the same jets
        check_labels(given, logits_BC.shape[1])
    smoothing = training.section.label_smoothing
    loss = cross_entropy(logits_BC, batch.labels_B, batch.weights_B, smoothing)
    backward(loss.step, state.scaler)
    return loss


def look(training: Training, state: TrainingState) -> None:
    """Adds up what the last steps gave. Raises JettaggerError at the first that is not finite."""
    if not training.pending:
        return
    rows = torch.stack([row for _, row in training.pending]).tolist()
    for (step, _), row in zip(training.pending, rows, strict=True):
        if not all(map(math.isfinite, row)) and not _left_out(state, row):
            training.pending.clear()
            _stop(training, state, step, row[2])
        state.sums.losses += row[0]
        state.sums.weights += row[1]
        if not math.isfinite(row[2]):
            continue
        state.sums.left_out_in_a_row = 0
        state.sums.norms += row[2]
        limit = training.section.gradient_clip
        state.sums.clipped += limit is not None and row[2] > limit
    training.pending.clear()


def _left_out(state: TrainingState, row: list[float]) -> bool:
    """Whether the scaler of a training in float16 left a step out; too many in a row are no accident."""
    if state.scaler is None or not all(map(math.isfinite, row[:2])):
        return False
    state.sums.left_out += 1
    state.sums.left_out_in_a_row += 1
    return state.sums.left_out_in_a_row < MOST_IN_A_ROW


def clip_gradients(optimiser: torch.optim.Optimizer, limit: float | None) -> Tensor:
    """The norm of the gradient over all parameters; where it exceeds `limit`, it is scaled down to it."""
    groups = optimiser.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if limit is not None:
        torch._foreach_mul_(gradients, (limit / norm.clamp(min=limit)))
    return norm


def _mirrored(training: Training, state: TrainingState, inputs: Inputs) -> Inputs:
    """The inputs of this step, some of them reflected; which ones is keyed by the step."""
    if training.mirror is None:
        return inputs
    stream = key(training.section.seed, "reflections", training.stream, state.step)
    device = training.hardware.device
    return training.mirror(inputs, torch.Generator(device).manual_seed(stream))


def _rate(training: Training, state: TrainingState, step: int) -> float:
    """The learning rate of a step of the epoch in progress."""
    section = training.section
    if training.rates is not None:
        return training.rates(step)
    share = rate(step, training.steps, section.schedule)
    return section.optimiser.lr * share * state.plateau.factor


def _stop(training: Training, state: TrainingState, step: int, norm: float) -> NoReturn:
    """Ends a training whose loss or gradient is not finite, with all that can be found out."""
    steps, section = training.train.steps, training.section
    batch = next(training.train.epoch(step // steps, step % steps)).to(training.hardware.device)
    where = f"epoch {step // steps + 1}, batch {step % steps + 1} of {steps} (step {step})"
    facts = [f"learning rate {_rate(training, state, step):.3g}", f"gradient norm {norm:.3g}"]
    raise not_finite(training.model, batch, training.hardware, section, where, facts)
