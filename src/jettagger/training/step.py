"""One step of a training: loss, gradient, weights; and the watch over whether they stay finite.

Shapes: B jets, K output columns.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor

from jettagger.batch import Batch
from jettagger.randomness import key, numpy_generator
from jettagger.training.accumulation import cuts, part_of, same_masks, sizes_of
from jettagger.training.augmentation import mixed
from jettagger.training.averages import follow
from jettagger.training.diagnosis import not_finite
from jettagger.training.l1 import add_l1
from jettagger.training.loss import check_labels
from jettagger.training.scaling import MOST_IN_A_ROW, apply, backward, unscale
from jettagger.training.schedules import rate
from jettagger.training.sharing import mean_statistics, sum_gradients, unshared
from jettagger.training.state import TrainingState
from jettagger.training.training import Training

CHECK_EVERY = 32
"""Steps between two looks at the loss on an accelerator, where each look waits for it."""


def make_step(training: Training, state: TrainingState, given: Batch) -> None:
    """One step of the optimiser, and what is remembered of it."""
    section = training.section
    clear_gradients(state.optimiser)
    sums = sum_gradients(training.ranks, state.optimiser, _gradient(training, state, given))
    if not section.sync_batch_norm:
        mean_statistics(training.ranks, training.model)
    unscale(state.optimiser, state.scaler)
    add_l1(training.model, section.l1)
    norm = clip_gradients(state.optimiser, section.gradient_clip)
    training.pending.append((state.step, torch.stack((*sums, norm))))
    if training.hardware.device.type == "cpu" or len(training.pending) == CHECK_EVERY:
        look(training, state)
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(training, state, state.step)
    apply(state.optimiser, state.scaler)
    follow(state, section, training.steps)
    state.sums.jets += len(given) if given.part is None else given.part.jets.total
    state.step += 1


def _gradient(training: Training, state: TrainingState, given: Batch) -> Tensor:
    """The gradient of the batch's loss, in the parameters; Σ w·l and Σ w of its jets, (2,)."""
    section, device = training.section, training.hardware.device
    batch = given if device.type == "cpu" else given.to(device)
    if section.accumulate == 1 and training.ranks.world == 1:
        return add_gradient(training, state, augmented(training, state.step, batch), None, given)
    magnitude = training.ranks.begin_sum(training.objective.magnitude(batch))
    batch = augmented(training, state.step, batch)
    sizes = sizes_of(given, section.accumulate, training.ranks.world)
    if len(sizes) < 2:
        return add_gradient(training, state, batch, magnitude, given)
    total, again = magnitude(), same_masks(training.model)
    sums = []
    for number, cut in enumerate(cuts(given.inputs, sizes)):
        if number:
            again()
        part = part_of(batch, cut)
        sums.append(add_gradient(training, state, part, lambda: total, part_of(given, cut)))
    return torch.stack(sums).sum(0)


def add_gradient(
    training: Training,
    state: TrainingState,
    batch: Batch,
    magnitude: Callable[[], Tensor] | None,
    given: Batch | None = None,
) -> Tensor:
    """Adds the gradient of Σ w·l / `magnitude` to the parameters'; returns Σ w·l and Σ w, (2,).

    Without a magnitude it is the batch's own Σ |w|. `given` is the batch as it is on the host.
    """
    if training.rows is not None:
        training.rows.set(batch.part)
    with training.hardware.autocast():
        raw_BK = training.network(batch.inputs)
    if given is not None and state.epoch == 0 and given.labels_B.is_cpu:  # later epochs have the same jets
        check_labels(given, training.model.outputs.classes)
    loss = training.objective(raw_BK, batch)
    if magnitude is not None:
        loss = loss._replace(magnitude=magnitude())
    backward(loss.step, state.scaler)
    return torch.stack((loss.losses.detach(), loss.weights.to(loss.losses.dtype)))


def look(training: Training, state: TrainingState) -> None:
    """Adds up what the last steps gave. Raises JettaggerError at the first that is not finite."""
    if not training.pending:
        return
    waiting = [row for _, row in training.pending]
    rows = [waiting[0].tolist()] if len(waiting) == 1 else torch.stack(waiting).tolist()
    for (step, _), row in zip(training.pending, rows, strict=True):
        if not all(map(math.isfinite, row)) and not _left_out(state, row):
            training.pending.clear()
            stop(training, state, step, row[2])
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


def clear_gradients(optimiser: torch.optim.Optimizer) -> None:
    """`zero_grad` without its profiling, which takes a small network longer than its loss."""
    for group in optimiser.param_groups:
        for p in group["params"]:
            p.grad = None


def clip_gradients(optimiser: torch.optim.Optimizer, limit: float | None) -> Tensor:
    """The norm of the gradient over all parameters; where it exceeds `limit`, it is scaled down to it."""
    groups = optimiser.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if limit is not None:
        torch._foreach_mul_(gradients, (limit / norm.clamp(min=limit)))
    return norm


def augmented(training: Training, step: int, batch: Batch) -> Batch:
    """The batch of a step, some of its jets reflected, or mixed; which ones is keyed by the step."""
    section = training.section
    if training.mirror is not None:
        stream = key(section.seed, "reflections", training.stream, step)
        drawn = torch.Generator(training.hardware.device).manual_seed(stream)
        rows = None if batch.part is None else batch.part.jets
        batch = replace(batch, inputs=training.mirror(batch.inputs, drawn, rows))
    if section.mixup is not None:
        generator = numpy_generator(section.seed, "mixup", training.stream, step)
        batch = mixed(batch, section.mixup, generator)
    return batch


def learning_rate(training: Training, state: TrainingState, step: int) -> float:
    """The learning rate of a step of the epoch in progress."""
    section = training.section
    if training.rates is not None:
        return training.rates(step)
    share = rate(step, training.steps, section.schedule)
    return section.peak_rate * share * state.plateau.factor


def stop(training: Training, state: TrainingState, step: int, norm: float) -> NoReturn:
    """Ends a training whose loss or gradient is not finite, with all that can be found out."""
    steps, section = training.train.steps, training.section
    train = training.train if training.whole is None else training.whole[0]
    batch = next(train.epoch(step // steps, step % steps)).to(training.hardware.device)
    where = f"epoch {step // steps + 1}, batch {step % steps + 1} of {steps} (step {step})"
    facts = [f"learning rate {learning_rate(training, state, step):.3g}", f"gradient norm {norm:.3g}"]
    with unshared(training.model, training.rows):
        error = not_finite(
            training.model, batch, training.hardware, section, training.objective, where, facts
        )
    error.step = step
    raise training.ranks.of_all(error)
